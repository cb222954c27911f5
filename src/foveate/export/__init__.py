"""Networks as files that do not need this library: graphs of torch.export and ONNX, and folders for a hub."""

from foveate.export.checking import TOLERANCE, Deviation, check_deviation, deviation, shapes_to_check
from foveate.export.detection import check_detections, onnx_detector, run_onnx_detector
from foveate.export.exporting import Dynamic, Exported, Form, export_network
from foveate.export.hub import HubEntry, check_hub_folder, push_to_hub, save_for_hub
from foveate.export.onnx_model import onnx_model, require_onnx, run_onnx
from foveate.export.program import Normalized, export_program, program_file, run_program, smallest_side

__all__ = [
    "TOLERANCE",
    "Deviation",
    "Dynamic",
    "Exported",
    "Form",
    "HubEntry",
    "Normalized",
    "check_detections",
    "check_deviation",
    "check_hub_folder",
    "deviation",
    "export_network",
    "export_program",
    "onnx_detector",
    "onnx_model",
    "program_file",
    "push_to_hub",
    "require_onnx",
    "run_onnx",
    "run_onnx_detector",
    "run_program",
    "save_for_hub",
    "shapes_to_check",
    "smallest_side",
]
