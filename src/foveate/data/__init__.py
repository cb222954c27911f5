"""Images to train, test and explain on.

`open_data` opens a set by name or folder, `make_loader` gives its batches, `make_mixup` mixes them:

    data = open_data("digits", seed=0)
    loader = make_loader(data.train, transform=data.transform, batch_size=128, training=True, seed=0)
    for epoch in range(10):
        loader.set_epoch(epoch)
        for images, labels in loader: ...

Every image, order and augmentation is a function of a seed, an epoch and an index.
"""

from foveate.data.boxes import InputBoxes, read_boxes
from foveate.data.decoding import BadImage, UnreadableImageError, read_image
from foveate.data.digits import ClutteredDigits, DigitSample
from foveate.data.folder import BoxedFolderImages, FolderImages, open_folder
from foveate.data.image_data import ImageData, open_data
from foveate.data.loader_data import LoaderData, Loaders, from_loaders
from foveate.data.loading import ImageLoader, make_loader
from foveate.data.mixing import BatchMixup, make_mixup
from foveate.data.named import open_named
from foveate.data.placement import Placement, placement
from foveate.data.protocols import BoxedImages, LabelledImages
from foveate.data.sampling import EpochSampler
from foveate.data.shards import ShardImages, open_shards
from foveate.data.transforms import TransformConfig, make_transform

__all__ = [
    "BadImage",
    "BatchMixup",
    "BoxedFolderImages",
    "BoxedImages",
    "ClutteredDigits",
    "DigitSample",
    "EpochSampler",
    "FolderImages",
    "ImageData",
    "ImageLoader",
    "InputBoxes",
    "LabelledImages",
    "LoaderData",
    "Loaders",
    "Placement",
    "ShardImages",
    "TransformConfig",
    "UnreadableImageError",
    "from_loaders",
    "make_loader",
    "make_mixup",
    "make_transform",
    "open_data",
    "open_folder",
    "open_named",
    "open_shards",
    "placement",
    "read_boxes",
    "read_image",
]
