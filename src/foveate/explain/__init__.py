"""Explanation of networks: attention maps as they are, on stated scales, and pictures of them.

The package itself can be called, ``foveate.explain(model, images)``: that is `explain`.
"""

import inspect
import sys
from types import ModuleType

from foveate._extras import require

for _needed in ("matplotlib", "scipy"):  # colors of pictures; components and intervals
    require(_needed, extra="explain")

from foveate.explain.attention_mass import mass_inside, region_shares  # noqa: E402
from foveate.explain.baselines import BASELINES, baseline_maps  # noqa: E402
from foveate.explain.explanation import Explanation, Guess, explain  # noqa: E402
from foveate.explain.faithfulness import Curves, Fill, deletion, insertion  # noqa: E402
from foveate.explain.maps import attention_records  # noqa: E402
from foveate.explain.overlay import draw_box, overlay, palette_stops  # noqa: E402
from foveate.explain.records import AttentionRecord, Scale  # noqa: E402
from foveate.explain.saliency import Saliency, saliency, shown_module  # noqa: E402
from foveate.explain.scores import (  # noqa: E402
    box_above,
    box_iou,
    component_iou,
    corners_box,
    energy_inside,
    max_box_acc,
    pointing_game,
)
from foveate.explain.sheet import Panel, Strip, contact_sheet  # noqa: E402
from foveate.explain.usage import attention_off, gradient_shares, parts_of  # noqa: E402

__all__ = [
    "BASELINES",
    "AttentionRecord",
    "Curves",
    "Explanation",
    "Fill",
    "Guess",
    "Panel",
    "Saliency",
    "Scale",
    "Strip",
    "attention_off",
    "attention_records",
    "baseline_maps",
    "box_above",
    "box_iou",
    "component_iou",
    "contact_sheet",
    "corners_box",
    "deletion",
    "draw_box",
    "energy_inside",
    "explain",
    "gradient_shares",
    "insertion",
    "mass_inside",
    "max_box_acc",
    "overlay",
    "palette_stops",
    "parts_of",
    "pointing_game",
    "region_shares",
    "saliency",
    "shown_module",
]


class ExplainPackage(ModuleType):
    """A package that is a function as well."""

    __call__ = staticmethod(explain)


__signature__ = inspect.signature(explain)
sys.modules[__name__].__class__ = ExplainPackage
