"""Where a network looks: its attention maps as they are, on stated scales, and pictures of them."""

from foveate._extras import require

require("matplotlib", extra="explain")  # for the colours of the pictures

from foveate.explain.maps import AttentionRecord, Scale, attention_records  # noqa: E402
from foveate.explain.overlay import draw_box, overlay, palette_stops  # noqa: E402

__all__ = ["AttentionRecord", "Scale", "attention_records", "draw_box", "overlay", "palette_stops"]
