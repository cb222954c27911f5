"""Attention as pure tensor functions, one file per mechanism, each citing its equation.

Each mechanism has a *map* (what attends to what, with which weight) and a *forward* that gives the same result
without forming the map. Arguments out of their range raise a `ValueError`, here as everywhere in the library.
"""

from foveate.functional._plain import plain_operators
from foveate.functional.augmented import augmented_attention, augmented_attention_map
from foveate.functional.axial_content import (
    axial_content_attention,
    axial_content_column,
    axial_content_map,
    axial_content_rows,
)
from foveate.functional.explicit import (
    KERNELS,
    explicit_attention,
    explicit_attention_map,
    explicit_attention_rows,
    gaussian_line_map,
    laplace_line_map,
)
from foveate.functional.global_self import (
    axial_positional_attention,
    axial_positional_map,
    content_attention,
    content_attention_column,
    content_attention_map,
    global_positional_column,
    global_positional_map,
    global_positional_rows,
)
from foveate.functional.positionwise import positionwise_map
from foveate.functional.rectangle import pixel_centers, rectangle_corners, rectangle_map
from foveate.functional.relative import relative_vectors, relative_window, resize_relative_table
from foveate.functional.similarity import (
    compose_similarities,
    invert_similarity,
    random_similarities,
    rectangle_distance,
    similarity_matrix,
    transform_points,
    transform_rectangle,
    visible,
    warp,
)
from foveate.kernels import found as fused_kernels

__all__ = [
    "KERNELS",
    "augmented_attention",
    "augmented_attention_map",
    "axial_content_attention",
    "axial_content_column",
    "axial_content_map",
    "axial_content_rows",
    "axial_positional_attention",
    "axial_positional_map",
    "compose_similarities",
    "content_attention",
    "content_attention_column",
    "content_attention_map",
    "explicit_attention",
    "explicit_attention_map",
    "explicit_attention_rows",
    "fused_kernels",
    "gaussian_line_map",
    "global_positional_column",
    "global_positional_map",
    "global_positional_rows",
    "invert_similarity",
    "laplace_line_map",
    "pixel_centers",
    "plain_operators",
    "positionwise_map",
    "random_similarities",
    "rectangle_corners",
    "rectangle_distance",
    "rectangle_map",
    "relative_vectors",
    "relative_window",
    "resize_relative_table",
    "similarity_matrix",
    "transform_points",
    "transform_rectangle",
    "visible",
    "warp",
]
