"""How fast images are read from tar shards, from a folder, and through the library webdataset."""
