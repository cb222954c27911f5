"""Intervals, paired differences and corrections: pure functions of arrays."""

from foveate._extras import check_installed

check_installed("scipy", extra="train")

from foveate.stats.bootstrap import RESAMPLES  # noqa: E402
from foveate.stats.crossed import CrossedDifference, crossed_by_interval, crossed_difference, holm  # noqa: E402
from foveate.stats.estimates import Estimate, estimate  # noqa: E402
from foveate.stats.paired import Difference, MeanScore, mean_score, paired_difference  # noqa: E402
from foveate.stats.records import Statistic, record_difference, record_score  # noqa: E402

__all__ = [
    "RESAMPLES",
    "CrossedDifference",
    "Difference",
    "Estimate",
    "MeanScore",
    "Statistic",
    "crossed_by_interval",
    "crossed_difference",
    "estimate",
    "holm",
    "mean_score",
    "paired_difference",
    "record_difference",
    "record_score",
]
