"""One judged case as a line of JSON: what a worker tells the judge, what a campaign keeps, what a report counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from efcp_ref.oracle.certify import Certificate
from efcp_ref.oracle.core import ERROR, FAIL, INCONCLUSIVE, PASS, Case, CaseVerdict, Check
from efcp_ref.oracle.targets import Outcome

TIERS = ("T0", "T1", "T2", "T3")
DTYPES = ("float64", "float32")
WORSE = (PASS, INCONCLUSIVE, FAIL)  # of one tier: the last of these that occurs


@dataclass(frozen=True)
class Tier:
    """What the checks of one tier say of one case: the worst verdict, the largest ratio that was decided."""

    verdict: str
    ratio: float | None = None


@dataclass(frozen=True)
class Row:
    """The verdict of one case without its arguments, which ``(operation, seed, index, dtype)`` give back."""

    operation: str
    seed: int
    index: int
    dtype: str
    verdict: str
    tiers: Mapping[str, Tier] = field(default_factory=dict)
    reason: str = ""  # of an error
    error: str = ""  # its kind: raised, timeout, ...
    kind: str = ""  # name of the exception's type
    traceback: str = ""
    output: str = ""
    first: Check | None = None  # the check that is blamed; of later like failures left out where they are many
    worst: Check | None = None  # the largest ratio, where it is larger than before in the same chunk
    kept: bool = True  # whether this failure may be shown: no smaller one of its kind came before it in the chunk
    quality: float | None = None
    certificate: Certificate | None = None

    @property
    def id(self) -> str:
        """Stable name of the case."""
        return f"{self.operation}:{self.seed}:{self.index}:{self.dtype}"


def row_of(verdict: CaseVerdict, outcome: Outcome) -> Row:
    """Return the row of one judged case."""
    case = verdict.case
    return Row(
        case.operation, case.seed, case.index, case.dtype, verdict.verdict, tiers_of(verdict.checks), verdict.reason,
        outcome.error, outcome.kind, outcome.traceback, outcome.output, verdict.first, verdict.worst, True,
        verdict.quality, verdict.certificate,
    )  # fmt: skip


def tiers_of(checks: tuple[Check, ...]) -> dict[str, Tier]:
    """Return the worst verdict and the largest decided ratio per tier.

    >>> tiers_of((Check("S", "T2", "W:4", "", 0.5), Check("u", "T2", "W:4", "", 0.25)))
    {'T2': Tier(verdict='pass', ratio=0.5)}
    """
    found = {}
    for tier in TIERS:
        here = [c for c in checks if c.tier == tier]
        decided = [c.ratio for c in here if c.verdict != INCONCLUSIVE]
        if here:
            found[tier] = Tier(max((c.verdict for c in here), key=WORSE.index), max(decided, default=None))
    return found


def restored(row: Row) -> tuple[CaseVerdict, Outcome]:
    """Return the verdict and outcome behind a row; its case is generated again where it may be shown."""
    checks = tuple(c for c in (row.first, row.worst) if c is not None)
    if "T3" in row.tiers and row.tiers["T3"].verdict != PASS:
        checks += (Check("", "T3", "", "", verdict=row.tiers["T3"].verdict),)
    shown = row.kept and row.verdict in (FAIL, ERROR)
    case = case_of(row) if shown else Case(row.operation, "", "", row.seed, row.index, {}, dtype=row.dtype)
    outcome = Outcome((), (), row.error, row.reason, row.kind, row.traceback, row.output)  # type: ignore[arg-type]
    return CaseVerdict(case, row.verdict, checks, row.reason, row.certificate, row.quality), outcome


def case_of(row: Row) -> Case:
    """Generate the case of a row again."""
    from efcp_ref.oracle.cases import generate

    case = generate(row.operation, row.seed, row.index)
    return case if row.dtype == case.dtype else case.with_dtype(row.dtype)


# --- JSON ---------------------------------------------------------------------------------------------------------

_NUMBERS = ("ratio", "got", "expected", "bound", "oracle_error")
_SHORT = {"reason": "why", "error": "error", "kind": "kind", "traceback": "trace", "output": "output"}


def number(x: float | None) -> Any:
    """Return a float as JSON can hold it: infinities and NaN as text."""
    return None if x is None else float(x) if math.isfinite(x) else str(float(x))


def check_json(check: Check | None) -> dict[str, Any] | None:
    """Return a check without what is empty.

    >>> check_json(Check("u", "T2", "W:4", "|.| <= u", float("inf"), "fail"))
    {'stage': 'u', 'tier': 'T2', 'line': 'W:4', 'rule': '|.| <= u', 'ratio': 'inf', 'verdict': 'fail'}
    """
    if check is None:
        return None
    found = {f.name: getattr(check, f.name) for f in fields(check)}
    found |= {n: number(found[n]) for n in _NUMBERS} | {"at": list(check.at)}
    return {n: v for n, v in found.items() if v not in (None, "", [])}


def check_from(raw: Mapping[str, Any] | None) -> Check | None:
    """Read what `check_json` wrote."""
    if raw is None:
        return None
    numbers = {n: float(raw[n]) for n in _NUMBERS if n in raw}
    return Check(**{"rule": "", **raw, **numbers, "at": tuple(raw.get("at", ()))})


def to_json(row: Row) -> dict[str, Any]:
    """Return a row without what its chunk says (operation, seed) and without what is empty."""
    tiers = {t: [v.verdict, number(v.ratio)] for t, v in row.tiers.items()}
    body: dict[str, Any] = {"i": row.index, "t": row.dtype, "v": row.verdict, "tiers": tiers}
    body |= {short: getattr(row, name) for name, short in _SHORT.items() if getattr(row, name)}
    body |= {n: check_json(getattr(row, n)) for n in ("first", "worst") if getattr(row, n)}
    body |= {} if row.quality is None else {"q": number(row.quality)}
    body |= {} if row.certificate is None else {"c": asdict(row.certificate)}
    return body if row.kept else body | {"kept": False}


def from_json(operation: str, seed: int, raw: Mapping[str, Any]) -> Row:
    """Read what `to_json` wrote."""
    tiers = {t: Tier(v, None if r is None else float(r)) for t, (v, r) in raw["tiers"].items()}
    return Row(
        operation, seed, raw["i"], raw["t"], raw["v"], tiers,
        **{name: raw.get(short, "") for name, short in _SHORT.items()},
        first=check_from(raw.get("first")), worst=check_from(raw.get("worst")), kept=raw.get("kept", True),
        quality=float(raw["q"]) if "q" in raw else None, certificate=Certificate(**raw["c"]) if "c" in raw else None,
    )  # fmt: skip


# --- rows of one chunk --------------------------------------------------------------------------------------------


def row_is_sound(row: Row) -> bool:
    """Whether a row that was read holds what `row_of` could have made: nothing else is counted.

    >>> row_is_sound(Row("sp", 0, 3, "float64", "pass")), row_is_sound(Row("sp", 0, 3, "float64", "perhaps"))
    (True, False)
    """
    texts = (row.reason, row.error, row.kind, row.traceback, row.output)
    return (
        type(row.index) is int
        and row.dtype in DTYPES
        and row.verdict in (PASS, FAIL, ERROR, INCONCLUSIVE)
        and set(row.tiers) <= set(TIERS)
        and all(tier.verdict in WORSE for tier in row.tiers.values())
        and all(isinstance(text, str) for text in texts)
        and isinstance(row.kept, bool)
        and (row.first is None or row.verdict != FAIL or row.first.tier in row.tiers)
        and all(check is None or _check_is_sound(check) for check in (row.first, row.worst))
    )


def _check_is_sound(check: Check) -> bool:
    texts = (check.stage, check.line, check.rule, check.reason)
    return (
        all(isinstance(text, str) for text in texts)
        and check.tier in TIERS
        and check.verdict in WORSE
        and all(type(i) is int for i in check.at)
    )


class Thinner:
    """Leaves out of the rows of one chunk what nobody will look at: the verdicts and ratios all stay."""

    def __init__(self) -> None:
        self._worst = -1.0
        self._sizes: dict[tuple[str, str], int] = {}

    def row(self, verdict: CaseVerdict, outcome: Outcome) -> Row:
        """Return the row of a case; details only of the smallest like failure and of the largest ratio so far."""
        from efcp_ref.oracle.judge import size

        row = row_of(verdict, outcome)
        row = replace(row, worst=self._record(row.worst))
        if row.verdict not in (FAIL, ERROR):
            return row
        key = (row.verdict, row.first.stage if row.first else f"{row.error} {row.kind}")
        numbers = size(verdict.case)
        if numbers < self._sizes.get(key, numbers + 1):
            self._sizes[key] = numbers
            return row
        return replace(row, kept=False, traceback="", output="", first=row.first and _stub(row.first))

    def _record(self, worst: Check | None) -> Check | None:
        if worst is None or worst.ratio <= self._worst:
            return None
        self._worst = worst.ratio
        return worst


@lru_cache(maxsize=256)
def _brief(stage: str, tier: str, line: str, verdict: str, reason: str) -> Check:
    return Check(stage, tier, line, "", 0.0, verdict, reason)


def _stub(check: Check) -> Check:
    """Where and why, without numbers and rule."""
    return _brief(check.stage, check.tier, check.line, check.verdict, check.reason)
