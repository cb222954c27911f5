"""What is measured. A new suite is a file with a `studies.bench.subject.Suite`, and a line here."""

from studies.bench.subject import Suite
from studies.bench.suites import cram, expatt, gsa, networks, scaling

__all__ = ["SUITES"]

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        gsa.SUITE,
        expatt.SUITE,
        cram.SUITE,
        networks.NETWORKS,
        networks.OVERHEAD,
        networks.SMALL,
        networks.LARGE,
        scaling.SUITE,
    )
}
