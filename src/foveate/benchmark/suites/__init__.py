"""What ``foveate bench`` measures. A new suite is a file with a `foveate.benchmark.subject.Suite`, and a line here."""

from foveate.benchmark.subject import Suite
from foveate.benchmark.suites import cram, expatt, gsa, networks, scaling

__all__ = ["SUITES"]

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (gsa.SUITE, expatt.SUITE, cram.SUITE, networks.NETWORKS, networks.OVERHEAD, scaling.SUITE)
}
