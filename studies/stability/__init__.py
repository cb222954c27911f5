"""How stable attention is across layers, changes of the image and seeds."""
