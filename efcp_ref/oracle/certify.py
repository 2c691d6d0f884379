"""Certified answers: the values that a verdict rests on are enclosed once more, by exact rationals or by balls.

``efcp-ref check TARGET --certify``. Every inequality of `criteria.structure` names its truth: a function that encloses
the reference (or the measured gap) from the same inputs, sharing no arithmetic with the criteria: see `enclose`. Where
the oracle turns out to be wrong by more than a tenth of the bound, the verdict becomes ``inconclusive(oracle)``. What
is too large to enclose is counted, never passed over. Without `certifying` around them these functions do nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from efcp_ref.oracle.core import INCONCLUSIVE, Check

if TYPE_CHECKING:
    from efcp_ref.oracle.enclose import Enclosed

SHARE = 0.1  # of the bound: what the oracle may be wrong by
ROUNDED = 2.0**-50  # relative: what writing a measured gap as one float64 may change
TOO_LARGE, NO_TRUTH = "too large to enclose", "no enclosure"
OVERTURNED = "overturned"
KINDS = ("rational", "ball", "comparison")
Truth = Callable[[], "Enclosed"]


class TooLarge(Exception):
    """The enclosure would take too long at this size."""


class Unenclosed(Exception):
    """No enclosure exists at any tried precision: an eigenvalue on the cut-off, or a root of what may be negative."""


@dataclass(frozen=True)
class Certificate:
    """What was enclosed of one case or of many."""

    rational: int = 0  # verdicts whose values were enclosed by rationals
    ball: int = 0  # by balls
    comparison: int = 0  # verdicts that compare given numbers: nothing is rounded
    overturned: int = 0  # verdicts that became inconclusive(oracle)
    missing: Mapping[str, int] = field(default_factory=dict)  # verdicts not certified, by reason
    largest: float = 0.0  # oracle error / bound of the verdicts that stand

    @property
    def certified(self) -> int:
        """Verdicts that were certified."""
        return self.rational + self.ball + self.comparison

    def __add__(self, other: Certificate) -> Certificate:
        missing = Counter(self.missing)
        missing.update(other.missing)
        return Certificate(
            self.rational + other.rational, self.ball + other.ball, self.comparison + other.comparison,
            self.overturned + other.overturned, dict(missing), max(self.largest, other.largest),
        )  # fmt: skip

    @property
    def text(self) -> str:
        """The certificate in words.

        >>> Certificate(3, 1, 0, 0, {"too large to enclose": 2}, 0.015).text
        'certified 4 of 6 (3 rational, 1 ball, 0 compared), oracle error at most 0.015 of the bound; 2 too large ...'
        """
        missing = "".join(f"; {n} {why}" for why, n in sorted(self.missing.items()))
        lost = f"; {self.overturned} became inconclusive(oracle)" if self.overturned else ""
        total = self.certified + self.overturned + sum(self.missing.values())
        return (
            f"certified {self.certified} of {total} ({self.rational} rational, {self.ball} ball, "
            f"{self.comparison} compared), oracle error at most {self.largest:.3g} of the bound{lost}{missing}"
        )


def total(certificates: Iterable[Certificate | None]) -> Certificate | None:
    """Return the sum of certificates; None where there is none."""
    found: Certificate | None = None
    for one in certificates:
        found = one if found is None else found if one is None else found + one
    return found


def certificate_of(checks: Iterable[Check]) -> Certificate:
    """Return what is certified of the verdicts of one case: of its checks of tiers T1 and T2."""
    found = Certificate()
    for check in checks:
        if check.tier not in ("T1", "T2"):
            continue
        if check.oracle == OVERTURNED:
            found = found + Certificate(overturned=1)
        elif check.verdict != INCONCLUSIVE:
            counts: dict[str, Any] = {check.oracle: 1} if check.oracle in KINDS else {"missing": {_why(check): 1}}
            found = found + Certificate(**counts, largest=check.oracle_error or 0.0)
    return found


def _why(check: Check) -> str:
    return check.oracle or NO_TRUTH


def merged(best: Check, other: Check) -> Check:
    """Return the check of one stage over several steps: ``best``, with the weaker certificate of both."""
    weaker = best.oracle if best.oracle not in KINDS or other.oracle in KINDS else other.oracle
    errors = [e for e in (best.oracle_error, other.oracle_error) if e is not None]
    return replace(best, oracle=weaker, oracle_error=max(errors, default=None))


_ACTIVE: ContextVar[bool] = ContextVar("certifying", default=False)


@contextmanager
def certifying(on: bool = True) -> Iterator[None]:
    """Certify every inequality that is evaluated inside.

    Raises:
        ModuleNotFoundError: python-flint is not installed; the message says how to get it.
    """
    if on:
        needed()
    token = _ACTIVE.set(on)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def active() -> bool:
    """Whether inequalities are being certified."""
    return _ACTIVE.get()


def needed() -> None:
    """Check that python-flint can be imported.

    Raises:
        ModuleNotFoundError: it cannot.
    """
    try:
        import flint  # noqa: F401
    except ModuleNotFoundError:
        words = "--certify needs python-flint: pip install 'efcp-ref[certify]'"
        raise ModuleNotFoundError(words, name="flint") from None


def audit(
    check: Check, value: Any, bound: Any, truth: Truth | None, decided: Any = True, gap: bool = False
) -> Check:
    """Return the check, or ``inconclusive(oracle)``: ``|value - truth| <= bound / 10`` on every decided element.

    Args:
        check: the verdict as it stands.
        value: what it rests on: a reference as float64 array or `Pair`, or with ``gap`` the measured ``|got - ref|``.
        bound: what rounding may do, without the oracle's own error.
        truth: encloses the same value; None: nothing does.
        decided: which elements count.
        gap: whether ``value`` is a measured gap, itself written as one float64.
    """
    if not _ACTIVE.get() or check.tier in ("T0", "T3") or check.verdict == INCONCLUSIVE:
        return check
    if truth is None:
        return replace(check, oracle=NO_TRUTH)
    try:
        enclosed = truth()
    except TooLarge:
        return replace(check, oracle=TOO_LARGE)
    except Unenclosed:
        return replace(check, verdict=INCONCLUSIVE, reason="oracle", oracle=OVERTURNED)
    error = _error(enclosed, value, gap)
    bound, decided = (np.broadcast_to(v, error.shape) for v in (bound, decided))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        share = np.where(error == 0, 0.0, error / bound)
    worst = float(np.max(np.where(decided, share, 0.0), initial=0.0))
    if worst > SHARE:
        return replace(check, verdict=INCONCLUSIVE, reason="oracle", oracle=OVERTURNED, oracle_error=worst)
    return replace(check, oracle=enclosed.kind, oracle_error=worst)


def compared(check: Check) -> Check:
    """Return a check that compares numbers as they were given: there is no reference to enclose."""
    return replace(check, oracle="comparison") if _ACTIVE.get() and check.verdict != INCONCLUSIVE else check


def _error(enclosed: Enclosed, value: Any, gap: bool) -> np.ndarray:
    """An upper bound of ``|value - truth|``, elementwise; of a gap less what its last rounding explains."""
    error = enclosed.far(value)
    return np.maximum(error - ROUNDED * np.abs(np.asarray(value, np.float64)), 0.0) if gap else error
