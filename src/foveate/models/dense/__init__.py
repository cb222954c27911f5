"""Networks for segmentation and detection around any network of timm's: decoders and detectors of other libraries."""

from foveate.models.dense.detector import DETECTORS, Detector, build_detector
from foveate.models.dense.heads import build_with_head, create_with_head, seen_size
from foveate.models.dense.pyramid import Pyramid
from foveate.models.dense.segmenter import DECODERS, Segmenter, build_segmenter

__all__ = [
    "DECODERS",
    "DETECTORS",
    "Detector",
    "Pyramid",
    "Segmenter",
    "build_detector",
    "build_segmenter",
    "build_with_head",
    "create_with_head",
    "seen_size",
]
