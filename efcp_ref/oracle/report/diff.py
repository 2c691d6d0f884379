"""What changed between two reports: new failures, operations that were lost, fixed ones, larger ratios, slower ones."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from efcp_ref.oracle import hostile
from efcp_ref.oracle.core import ERROR, FAIL, SEVERITY, SKIP
from efcp_ref.oracle.report.machines import FORMAT
from efcp_ref.oracle.targets import UsageError

GROWN = 1.25  # times the old worst ratio
NOTICED = 1e-3  # ratios below are of no interest
SLOWER = 1.5  # times the old seconds per case
SHORTEST = 0.5  # seconds of an operation below which time says nothing
BAD = (FAIL, ERROR)
LARGEST = 1 << 29  # bytes of a report that are read
MOST = 2_000_000  # cases of a report that are no pass
LONGEST = 1 << 24  # bytes of one line
_ID = re.compile(r"[a-z0-9_]{1,60}:\d{1,18}:\d{1,18}:[a-z0-9]{1,20}")


@dataclass(frozen=True)
class Read:
    """A report that was read back, its values of the types that `difference` counts on."""

    head: Mapping[str, Any]
    operations: Mapping[str, Mapping[str, Any]]
    cases: Mapping[str, str]  # verdict of every case that is no pass, by id


def read(path: str | Path) -> Read:
    """Read ``report.jsonl``, or the one in a folder.

    Raises:
        UsageError: there is none, or it is no report of ours; the line and the rule that it breaks are named.
    """
    path = Path(path) / "report.jsonl" if Path(path).is_dir() else Path(path)
    found, number = Read({}, {}, {}), 0
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
                raise UsageError(f"{path}: no plain file of at most {LARGEST >> 20} MiB")
            while line := file.readline(LONGEST + 1):
                number += 1
                _take(found, number, hostile.json_value(line, LONGEST))
    except OSError as why:
        raise UsageError(f"{path}: {why.strerror}") from None
    except hostile.Hostile as why:
        raise UsageError(f"{path}: not a report of efcp-ref (line {number}: {why})") from None
    except ValueError as why:  # a path with a zero byte
        raise UsageError(f"{str(path)!r}: {why}") from None
    if not number:
        raise UsageError(f"{path}: not a report of efcp-ref (it is empty)")
    return found


def _take(found: Any, number: int, one: Any) -> None:
    """Take one line in."""
    kind = hostile.field(one, "kind", str)
    if (number == 1) != (kind == "report"):
        raise hostile.Hostile("the first line, and no other, is of kind 'report'")
    if kind == "report":
        if (name := hostile.field(one, "format", str)) != FORMAT:
            raise hostile.Hostile(f"format {name[:40]!r}, must be {FORMAT!r}")
        found.head["target"] = hostile.field(one, "target", str)
        found.head.update(seed=_count(one, "seed"), cases=_count(one, "cases"))
    elif kind == "operation":
        found.operations[hostile.field(one, "operation", str)] = _operation(one)
    elif kind == "case":
        case = hostile.field(one, "case", str)
        if not _ID.fullmatch(case):
            raise hostile.Hostile(f"case {case[:60]!r}, must be OPERATION:SEED:INDEX:DTYPE")
        found.cases[case] = _verdict(one)
        if len(found.cases) > MOST:
            raise hostile.Hostile(f"more than {MOST} cases that are no pass")


def _operation(one: Mapping[str, Any]) -> dict[str, Any]:
    counts = {n: hostile.field(one, n, dict) for n in ("inconclusive", "errors")}
    tiers = hostile.field(one, "tiers", dict)
    return {
        "verdict": _verdict(one), "passed": _count(one, "passed"), "failed": _count(one, "failed"),
        **{n: {reason: _count(c, reason) for reason in c} for n, c in counts.items()},
        "note": hostile.field(one, "note", str), "seconds": _number(hostile.field(one, "seconds", (int, float))),
        "tiers": {tier: {"largest": _number(hostile.field(tiers, tier, dict).get("largest"))} for tier in tiers},
    }  # fmt: skip


def _verdict(one: Mapping[str, Any]) -> str:
    if (verdict := hostile.field(one, "verdict", str)) not in SEVERITY:
        raise hostile.Hostile(f"verdict {verdict[:40]!r}, must be one of {', '.join(SEVERITY)}")
    return verdict


def _count(one: Mapping[str, Any], name: str) -> int:
    if not 0 <= (count := hostile.field(one, name, int)) < 1 << 63:
        raise hostile.Hostile(f"{name[:40]!r} is {str(count)[:40]}, must be a count")
    return count


def _number(raw: Any) -> float:
    """A ratio or a time: none is 0, infinities and NaN travel as text."""
    if raw in ("inf", "-inf", "nan"):
        return float(raw)
    if raw is not None and (isinstance(raw, bool) or not isinstance(raw, (int, float)) or abs(raw) > 1e308):
        raise hostile.Hostile(f"{str(raw)[:40]!r} is no number")
    return float(raw or 0.0)


@dataclass(frozen=True)
class Difference:
    """What changed from A to B; every entry is a line to read."""

    broken: tuple[str, ...] = ()  # operations that fail in B and did not in A
    fixed: tuple[str, ...] = ()
    new_cases: tuple[str, ...] = ()  # cases that fail in B and were judged and fine in A
    fixed_cases: tuple[str, ...] = ()
    larger: tuple[str, ...] = ()  # worst ratios that grew
    smaller: tuple[str, ...] = ()
    slower: tuple[str, ...] = ()
    faster: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()  # operations that were judged in A and are not in B: gone, not offered, never reached
    changed: tuple[str, ...] = field(default=(), repr=False)  # other verdicts: offered now, decided or not

    @property
    def exit_code(self) -> int:
        """1 where anything fails that did not, or is not judged any more, else 0."""
        return 1 if self.broken or self.new_cases or self.lost else 0

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {name: list(value) for name, value in asdict(self).items()} | {"exit_code": self.exit_code}

    def lines(self) -> Iterator[str]:
        """Yield it as text, 20 entries of each kind."""
        titles = {"broken": "new failures", "lost": "no longer judged", "fixed": "fixed",
                  "new_cases": "cases that fail now", "fixed_cases": "cases that no longer fail",
                  "larger": "larger ratios", "smaller": "smaller ratios", "slower": "slower", "faster": "faster",
                  "changed": "other changes", "notes": "notes"}  # fmt: skip
        for name, title in titles.items():
            entries = getattr(self, name)
            if entries:
                yield f"{title} ({len(entries)}):"
                yield from ("  " + _plain(entry) for entry in entries[:20])
                yield from ([f"  ... {len(entries) - 20} more"] if len(entries) > 20 else [])
        if not any(getattr(self, name) for name in titles if name != "notes"):
            yield "no difference"


def _plain(entry: str) -> str:
    """A line that a terminal only shows: what was read may hold control characters."""
    return "".join(c if c.isprintable() else "?" for c in entry[:300])


def difference(a: Read, b: Read) -> Difference:
    """Return what changed from report A to report B.

    Single cases are compared where both have the same seed, up to the smaller number of cases.
    """
    shared = [name for name in b.operations if name in a.operations]
    was, now = ({n: str(r.operations[n]["verdict"]) for n in shared} for r in (a, b))
    broken = [n for n in b.operations if b.operations[n]["verdict"] in BAD and was.get(n) not in BAD]
    fixed = [n for n in shared if was[n] in BAD and now[n] not in (*BAD, SKIP)]
    lost = [n for n in a.operations if a.operations[n]["verdict"] != SKIP and now.get(n, SKIP) == SKIP]
    other = [n for n in shared if was[n] != now[n] and n not in (*broken, *fixed, *lost)]
    larger, smaller = _ratios(a, b, shared)
    slower, faster = _times(a, b, shared)
    new, gone, notes = _cases(a, b)
    return Difference(
        tuple(f"{n}: {was.get(n, 'not judged')} -> {b.operations[n]['verdict']}" for n in broken),
        tuple(f"{n}: {was[n]} -> {now[n]}" for n in fixed), new, gone, larger, smaller, slower, faster, notes,
        tuple(f"{n}: {a.operations[n]['verdict']} -> {now.get(n, 'not judged')}" for n in lost),
        tuple(f"{n}: {was[n]} -> {now[n]}" for n in other),
    )  # fmt: skip


def _ratios(a: Read, b: Read, shared: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    larger, smaller = [], []
    for name in shared:
        before, after = a.operations[name]["tiers"], b.operations[name]["tiers"]
        for tier in [t for t in after if t in before]:
            old, new = (float(side[tier]["largest"]) for side in (before, after))
            if not max(old, new) >= NOTICED:
                continue
            if new > GROWN * old:
                larger.append(f"{name} {tier}: {old:.3g} -> {new:.3g}")
            elif old > GROWN * new:
                smaller.append(f"{name} {tier}: {old:.3g} -> {new:.3g}")
    return tuple(larger), tuple(smaller)


def _judged(operation: Mapping[str, Any]) -> int:
    undecided, errors = operation["inconclusive"], operation["errors"]
    return int(operation["passed"] + operation["failed"] + sum(undecided.values()) + sum(errors.values()))


def _times(a: Read, b: Read, shared: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    slower, faster = [], []
    for name in shared:
        old, new = (side.operations[name] for side in (a, b))
        if min(_judged(old), _judged(new)) == 0 or max(old["seconds"], new["seconds"]) < SHORTEST:
            continue
        before, after = (1000 * one["seconds"] / _judged(one) for one in (old, new))
        words = f"{name}: {before:.3g} -> {after:.3g} ms per case"
        if after > SLOWER * before:
            slower.append(words)
        elif before > SLOWER * after:
            faster.append(words)
    return tuple(slower), tuple(faster)


def _cases(a: Read, b: Read) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    notes = []
    if a.head["target"] != b.head["target"]:
        notes.append(f"the targets differ: {a.head['target']} and {b.head['target']}")
    if a.head["seed"] != b.head["seed"]:
        return (), (), (*notes, "the seeds differ, so single cases are not compared")
    most = min(int(a.head["cases"]), int(b.head["cases"]))
    old, new = a.cases, b.cases
    within = [case for case in {**old, **new} if int(case.split(":")[2]) < most and _both(case, a, b)]
    broke = [f"{c}: {new[c]}" for c in within if new.get(c) in BAD and old.get(c) not in BAD]
    fixed = [c for c in within if old.get(c) in BAD and new.get(c) not in BAD]
    return tuple(broke), tuple(fixed), tuple(notes)


def _both(case: str, a: Read, b: Read) -> bool:
    """Whether both reports judged the operation, to the end."""
    operation = case.split(":")[0]
    found = [side.operations.get(operation) for side in (a, b)]
    return all(one is not None and _judged(one) and not one["note"] for one in found)
