"""The pytest plugin: ``pytest --efcp-target my_code.py`` judges a target, one test per operation and tier.

    pytest --efcp-target my_code.py --efcp-cases 100 -k "sp or lcg"
    pytest --efcp-command ./mine --efcp-xfail known.txt -n 4

A line of an xfail list is ``operation`` or ``operation:tier``, then a reason after ``#``; such lines may also stand in
the configuration as ``efcp_xfail``. An operation is judged once, whatever the number of workers of pytest-xdist.
Nothing of the oracle is imported before a target is named.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TIERS = {
    "T0": "shape, dtype, finite, inputs unmodified; it runs", "T1": "exact", "T2": "within the rigorous bound",
    "T3": "within the probable bound; a warning where not",
}  # fmt: skip
FOLDER = pytest.StashKey[Path]()


class EfcpWarning(UserWarning):
    """A result outside the probable bound of tier T3, which is no failure."""


# --- options ------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and the settings of the same meaning."""
    group = parser.getgroup("efcp", "judging an implementation of EFCP (efcp_ref)")
    add = group.addoption
    add("--efcp-target", metavar="TARGET", help="my_code.py, package.module, or either with :object")
    add("--efcp-command", metavar="COMMAND", help="the process behind this command instead")
    add("--efcp-operation", action="append", default=[], metavar="NAME", help="this operation only; may be repeated")
    add("--efcp-cases", type=int, default=40, metavar="N", help="cases per operation and precision (40)")
    add("--efcp-seed", type=int, default=0, metavar="SEED", help="seed of the cases (0)")
    add("--efcp-timeout", type=float, default=10.0, metavar="S", help="seconds per case (10)")
    add("--efcp-xfail", action="append", default=[], metavar="FILE", help="list of operations known to fail")
    parser.addini("efcp_target", "as --efcp-target", default="")
    parser.addini("efcp_xfail", "operations known to fail: operation or operation:tier  # reason", type="linelist")


def _door(config: pytest.Config) -> Any:
    """How to open the target; None where none is named."""
    command = config.getoption("efcp_command")
    target = config.getoption("efcp_target") or (not command and config.getini("efcp_target"))
    if target and command:
        raise pytest.UsageError("name one of --efcp-target and --efcp-command")
    if not (target or command):
        return None
    from efcp_ref.oracle.chunks import Door

    return Door(str(target or command), timeout=config.getoption("efcp_timeout"), command=bool(command))


def expected_failures(config: pytest.Config) -> dict[str, str]:
    """Return the reason by ``operation:tier``; a line without a tier stands for all.

    Raises:
        pytest.UsageError: no such file, operation or tier.
    """
    from efcp_ref.contract import NAMES

    lines = list(config.getini("efcp_xfail"))
    for name in config.getoption("efcp_xfail"):
        try:
            lines += Path(name).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as why:  # no such file, no UTF-8, no path
            raise pytest.UsageError(f"--efcp-xfail {name}: {getattr(why, 'strerror', None) or why}") from None
    found: dict[str, str] = {}
    for line in lines:
        what, _, reason = (part.strip() for part in line.partition("#"))
        operation, _, tier = what.partition(":")
        if what and (operation not in NAMES or tier not in ("", *TIERS)):
            raise pytest.UsageError(f"xfail list: {what!r} is no operation of the contract, with or without :T0 to :T3")
        found |= {f"{operation}:{t}": reason or "known to fail" for t in ([tier] if tier else TIERS) if what}
    return found


# --- one operation ------------------------------------------------------------------------------------------------


def _judged(door: Any, operation: str, cases: int, seed: int) -> dict[str, Any]:
    """Judge one operation; return per tier what its test says."""
    from efcp_ref.oracle import terminal
    from efcp_ref.oracle.judge import Report, judge
    from efcp_ref.oracle.report.collect import Stats
    from efcp_ref.oracle.targets import BrokenTarget

    stats = Stats()
    try:
        target = door.open()
    except BrokenTarget as why:
        return {"T0": {"verdict": "error", "text": f"the target could not be imported: {why}"}}
    try:
        report: Report = judge(target, [operation], cases, seed, seen=stats.add)
    finally:
        target.close()
    entry = report[operation]
    told: dict[str, Any] = {tier: _of_tier(spread) for tier, spread in stats.of(operation).items()}
    for failure in entry.failures:
        first = failure.verdict.first
        tier = first.tier if first and failure.verdict.verdict == "fail" else "T0"
        told.setdefault(tier, {"verdict": "error", "text": ""})
        told[tier]["text"] += "\n" + "\n".join(terminal.failure_lines(door.name, entry, failure)) + "\n"
    if entry.errors and told.setdefault("T0", {"verdict": "error", "text": ""})["verdict"] != "fail":
        told["T0"]["verdict"] = "error"
    return told


def _of_tier(spread: Any) -> dict[str, str]:
    counts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(spread.verdicts.items()))
    verdict = "fail" if spread.blamed else "warned" if spread.verdicts["fail"] else spread.verdict
    return {"verdict": verdict, "text": f"{counts}; largest ratio {spread.largest}"}


class Verdicts:
    """Verdicts by operation, judged when the first test asks; workers of xdist share them through a folder."""

    def __init__(self, door: Any, cases: int, seed: int, folder: Path | None) -> None:
        """Nothing is judged yet."""
        self.door, self.cases, self.seed, self.folder = door, cases, seed, folder
        self._known: dict[str, dict[str, Any]] = {}

    def __getitem__(self, operation: str) -> dict[str, Any]:
        """Return what the tests of an operation say, by tier."""
        if operation not in self._known:
            self._known[operation] = self._shared(operation) if self.folder else self._judge(operation)
        return self._known[operation]

    def _judge(self, operation: str) -> dict[str, Any]:
        return _judged(self.door, operation, self.cases, self.seed)

    def _shared(self, operation: str) -> dict[str, Any]:
        """Judge it, or wait for the worker that does."""
        import fcntl

        assert self.folder is not None
        with open(self.folder / operation, "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            if text:
                return json.loads(text)
            told = self._judge(operation)
            file.write(json.dumps(told))
            return told


# --- tests --------------------------------------------------------------------------------------------------------


class Conforms(pytest.Item):
    """One operation in one tier."""

    def __init__(self, *, verdicts: Verdicts, operation: str, tier: str, **more: Any) -> None:
        """Nothing is judged before it runs."""
        super().__init__(**more)
        self.verdicts, self.operation, self.tier = verdicts, operation, tier

    def runtest(self) -> None:
        """Fail, skip what was not decided or does not apply, warn, or pass."""
        told = self.verdicts[self.operation].get(self.tier)
        if told is None:
            pytest.skip(f"{self.tier} ({TIERS[self.tier]}) does not apply to {self.operation}")
        if told["verdict"] in ("fail", "error"):
            raise Departs(told["text"])
        if told["verdict"] == "inconclusive":
            pytest.skip(f"{self.operation} {self.tier}: no case could be decided ({told['text']})")
        if told["verdict"] == "warned":
            self.warn(EfcpWarning(f"{self.operation} {self.tier}: {told['text']}"))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the oracle's own words, and a traceback only of what is not one of them."""
        return str(excinfo.value) if isinstance(excinfo.value, Departs) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        """Where it is: the target."""
        return self.verdicts.door.name, None, self.name


class Departs(AssertionError):
    """The target departs from the paper."""


class TargetTests(pytest.Collector):
    """The tests of one target."""

    def __init__(self, *, door: Any, folder: Path | None, **more: Any) -> None:
        """Nothing is opened yet."""
        super().__init__(**more)
        self.door, self.folder = door, folder

    def collect(self) -> Iterator[Conforms]:
        """One test per operation that the target offers, and tier."""
        get = self.config.getoption
        xfail = expected_failures(self.config)
        verdicts = Verdicts(self.door, get("efcp_cases"), get("efcp_seed"), self.folder)
        for operation in _offered(self.door, get("efcp_operation")):
            for tier in TIERS:
                item = Conforms.from_parent(
                    self, name=f"{operation}[{tier}]", verdicts=verdicts, operation=operation, tier=tier
                )
                if reason := xfail.get(f"{operation}:{tier}"):
                    item.add_marker(pytest.mark.xfail(reason=reason))
                yield item


def _offered(door: Any, asked: list[str]) -> list[str]:
    """Operations of the contract that the target offers, in contract order; all asked where it cannot be imported."""
    from efcp_ref.contract import NAMES
    from efcp_ref.oracle.targets import BrokenTarget, UsageError, known

    try:
        wanted = [known(name) for name in asked] or list(NAMES)
        target = door.open()
    except UsageError as why:
        raise pytest.UsageError(str(why)) from None
    except BrokenTarget:
        return wanted[:1] if not asked else wanted  # its test says why
    target.close()
    if missing := [name for name in asked if name not in target.offered]:
        raise pytest.UsageError(f"{door.name} does not offer {', '.join(missing)}")
    return [name for name in NAMES if name in wanted and name in target.offered]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the tests of the target to those that were collected, before they are selected by name."""
    door = _door(config)
    if door is None:
        return
    name = door.name.replace("::", ":")
    shared = getattr(config, "workerinput", {}).get("efcp_folder")
    folder = Path(shared) if shared else None
    tests = TargetTests.from_parent(session, name=f"efcp {name}", nodeid=f"efcp {name}", door=door, folder=folder)
    items += list(tests.collect())


# --- pytest-xdist -------------------------------------------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give every worker the folder that holds the verdicts."""
    stash = node.config.stash
    if FOLDER not in stash:
        stash[FOLDER] = Path(tempfile.mkdtemp(prefix="efcp-ref-"))
    node.workerinput["efcp_folder"] = str(stash[FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder."""
    if FOLDER in config.stash:
        shutil.rmtree(config.stash[FOLDER], ignore_errors=True)
