"""Settings of the whole suite: the same examples on every run, and nothing skipped in silence."""

from collections import Counter

import pytest
from hypothesis import settings

SLOW = pytest.StashKey[int]()

settings.register_profile("efcp", deadline=None, derandomize=True)
settings.load_profile("efcp")


def pytest_addoption(parser):
    """Let the slow tests be asked for."""
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_collection_modifyitems(config, items):
    """Deselect the slow tests unless they are asked for; pytest counts what is deselected. The browser goes first.

    Its tests take longest: at the end, one worker of xdist would have them all and the others would wait.
    """
    items.sort(key=lambda item: item.get_closest_marker("browser") is None)
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
    config.stash[SLOW] = len(slow)
    if hasattr(config, "workeroutput"):  # under xdist the workers collect, their parent sums up
        config.workeroutput["slow"] = len(slow)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Take the count of a worker of xdist."""
    node.config.stash[SLOW] = getattr(node, "workeroutput", {}).get("slow", 0)


def pytest_terminal_summary(terminalreporter, config):
    """Count what was skipped, with the reasons; the lines are there when the counts are zero, too."""
    reasons = Counter(
        report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in terminalreporter.stats.get("skipped", [])
    )
    terminalreporter.write_line(f"skipped: {sum(reasons.values())}")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"  {count} x {reason}")
    terminalreporter.write_line(f"slow tests not run: {config.stash.get(SLOW, 0)} (--slow runs them)")
