"""Images in tar files, in the form of WebDataset: as many as fit on a disk, read in long runs.

A folder of shards holds ``train-000000.tar`` and so on, ``val-…`` and perhaps ``test-…``. A sample is two members that
follow one another: ``KEY.jpg`` (the bytes of the image as they were) and ``KEY.cls`` (the number of its class). Beside
each shard stands ``train-000000.idx``, which says where in it each image lies, and beside all of them ``shards.json``.
With those a shard is read like any other data set, by number, so that ranks, workers and resumption need nothing of
their own; only the order in which the images come, `ShardOrder`, keeps to a few shards at a time.
"""

from foveate.data.shards.index import INDEX, Shard, ShardIndex, read_index
from foveate.data.shards.indexing import check_shards, index_shards
from foveate.data.shards.making import make_shards
from foveate.data.shards.order import ShardOrder
from foveate.data.shards.reading import ShardImages, open_shards
from foveate.data.shards.scanning import MAX_MEMBER, check_shard, find_shards, index_shard
from foveate.data.shards.writing import PlannedShard, plan_shards, source_digest, write_records, write_shard

__all__ = [
    "INDEX",
    "MAX_MEMBER",
    "PlannedShard",
    "Shard",
    "ShardImages",
    "ShardIndex",
    "ShardOrder",
    "check_shard",
    "check_shards",
    "find_shards",
    "index_shard",
    "index_shards",
    "make_shards",
    "open_shards",
    "plan_shards",
    "read_index",
    "source_digest",
    "write_records",
    "write_shard",
]
