"""Networks with attention, registered with timm, and insertion of attention into any of timm's."""

from foveate.models.attention_net import AttentionResNet
from foveate.models.insertion import insert
from foveate.models.replacement import replace
from foveate.models.shipped import shipped
from foveate.models.tables import checkpoint_filter_fn, resize_relative_tables, scale_reach
from foveate.models.zoo import registered

__all__ = [
    "AttentionResNet",
    "checkpoint_filter_fn",
    "insert",
    "registered",
    "replace",
    "resize_relative_tables",
    "scale_reach",
    "shipped",
]
