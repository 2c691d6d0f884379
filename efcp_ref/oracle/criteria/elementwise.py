"""Judges Algorithm 7 (diagonal AdaGrad with error feedback) and EF-SignSGD, entry by entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from efcp_ref.oracle import enclose
from efcp_ref.oracle.certify import audit, compared
from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, Case, Check, Declared, Unit, hyper, unit_of
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.eigen import finite
from efcp_ref.oracle.exact import (
    Pair,
    add,
    adds_exactly,
    apart,
    divide,
    negative,
    pair,
    times,
    total,
    two_prod,
    two_sum,
)
from efcp_ref.paper._validate import Array

_EITHER = "xi' = 0 where kept, |xi' - a| <= u |a| where dropped, a = xi + g"
_CHOICE = "k entries are kept, none smaller than one that is dropped"
RELEASED_EPS = 1e-10  # added outside the root by the released code, and by the usual frameworks (R29)


def adagrad_step(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """Judge xi', G', theta' of one step; c is not returned and is read off xi' and G'.

    Kept entries have xi' = 0, dropped ones ``|xi' - a| <= u |a|``, a = xi + g, k kept, none smaller than a dropped one;
    ``|G' - (G + c^2)| <= 2u (|G| + c^2) + 2u c^2 + 2^-149``; ``|theta' - ref| <= u (|theta'| + 5 eta |step|)`` given
    its own G' (elementwise; the extra ``2u c^2`` and ``u eta |step|`` because c, a rounded sum, is not seen).
    """
    theta, xi, G, g = (t0.wide(case.arguments[n]) for n in ("theta", "xi", "G", "g"))
    shape = dict.fromkeys(("theta", "xi", "G"), theta.shape)
    checks = t0.outputs(case, result, shape)
    if t0.broken(checks) or t0.broken(checks := [*checks, *finite(result, shape, "7:9")]):
        return tuple(checks)
    arrays = [np.asarray(result[n]) for n in shape]
    unit = max((unit_of(a, declared) for a in arrays), key=lambda unit: unit.u)
    new_theta, new_xi, new_G = map(t0.wide, arrays)
    exact = "exact" in case.flags
    feedback, kept = sent(two_sum(xi, g), new_xi, new_G != G, int(case.arguments["k"]), unit, exact)
    checks += feedback
    if t0.broken(checks):
        return tuple(checks)
    a = two_sum(xi, g)
    checks.append(squares(a, kept, G, new_G, unit, exact))
    if t0.broken(checks):
        return tuple(checks)
    eta = hyper(case, "eta")
    return (*checks, moved(theta, np.where(kept, a.hi, 0.0), new_G, eta, new_theta, unit, declared))


def sent(a: Pair, left: Array, hint: Array, k: int, unit: Unit, exact: bool = False) -> tuple[list[Check], Array]:
    """Return the checks of lines 5 to 7 and the entries that were kept, read off ``left`` = xi'.

    Every xi' is 0 (kept) or within ``u |a|`` of a (dropped); an entry that is both (a = 0) counts as ``hint`` says.
    Exactly k are kept; ``|a_kept| (1 + 2u) >= |xi'_dropped|``.
    """
    slack = 0.0 if exact and not a.lo.any() and _representable(a.hi, unit) else unit.u
    gap, tier = apart(left, a), "T1" if slack == 0 else "T2"
    stays, goes = gap <= slack * np.abs(a.hi), left == 0
    if not (stays | goes).all():
        broken = _neither(a.hi, left, np.where(stays | goes, -1.0, gap), slack, k, tier)
        return [_beyond(broken, a, left, gap, slack * np.abs(a.hi), ~(stays | goes))], goes
    surely = goes & ~stays  # kept without doubt; what stays and goes is free
    if not surely.sum() <= k <= goes.sum():
        reason = f"{int(surely.sum())} entries with a != 0 are kept, must be {k}"
        return [compared(t0.failed("xi", tier, "7:6", _CHOICE, reason))], surely
    kept, dropped = surely | (goes & stays & hint), np.where(stays & ~goes, np.abs(left), -1.0)
    smallest, largest = np.abs(a.hi[surely]).min(initial=np.inf), max(float(dropped.max(initial=0.0)), 0.0)
    if (k > surely.sum() and largest > 0) or smallest * (1 + 2 * slack) < largest:
        reason = f"|a| = {largest:g} is dropped, {smallest if k == surely.sum() else 0.0:g} is kept"
        return [compared(t0.failed("xi", tier, "7:6", _CHOICE, reason, (int(np.argmax(dropped)),)))], kept
    scaled = gap / np.maximum(unit.u * np.abs(a.hi), 5e-324)
    ratio = float(np.max(np.where(goes | (gap == 0), 0.0, scaled), initial=0.0))
    judged = audit(
        Check("xi", tier, "7:5", _EITHER, ratio), np.where(goes, 0.0, gap), slack * np.abs(a.hi),
        lambda: enclose.gap(a.hi, a.lo, got=left, where=~goes), gap=True,
    )  # fmt: skip
    return [judged, compared(t0.passed("xi", tier, "7:6", _CHOICE))], kept


def _beyond(check: Check, a: Pair, left: Array, gap: Array, bound: Array, where: Array) -> Check:
    """Certify ``|xi' - a|`` of the entries that are neither kept nor dropped."""
    return audit(
        check, gap, bound, lambda: enclose.gap(a.hi, a.lo, got=left, where=where), decided=where, gap=True
    )


def _neither(a: Array, left: Array, gap: Array, slack: float, k: int, tier: str) -> Check:
    """Blame line 7 where xi' is a with something else taken off, or at most k entries are wrong; else the sum."""
    at = int(np.argmax(gap))
    shifted = np.isclose(left, a - np.sign(a) * np.abs(a).max()).all()
    line = "7:7" if shifted or (gap >= 0).sum() <= k else "7:5"
    numbers = {"got": float(left[at]), "expected": float(a[at]), "bound": float(slack * abs(a[at]))}
    return t0.failed("xi", tier, line, _EITHER, "xi' is neither 0 nor a", (at,), **numbers)


def _representable(values: Array, unit: Unit) -> bool:
    return bool(np.array_equal(t0.wide(t0.rounding(values, unit.name)), values))


def squares(a: Pair, kept: Array, G: Array, got: Array, unit: Unit, exact: bool = False) -> Check:
    """``|G' - (G + c^2)| <= 2u (|G| + c^2) + 2u c^2 + 2^-149`` where kept, ``G' = G`` elsewhere; line 8."""
    c = np.where(kept, a.hi, 0.0)

    def truth() -> enclose.Enclosed:
        return enclose.squared(a.hi, a.lo, kept, G)

    square = two_prod(c, c)
    expected = add(add(square, 2 * c * np.where(kept, a.lo, 0.0)), G)
    if (
        exact
        and not a.lo.any()
        and _representable(expected.hi, unit)
        and not expected.lo.any()
        and _representable(square.hi, unit)
    ):
        return t0.equal("G", "7:8", "G' = G + c^2, exactly", got, expected, truth=truth)
    bound = np.where(kept, unit.u * (2 * np.abs(G) + 4 * square.hi) + unit.tiny, 0.0)
    check = t0.forward("G", "7:8", "|G' - (G + c^2)| <= 2u (|G| + c^2) + 2u c^2", got, expected, bound, truth=truth)
    lost = kept & (c != 0) & (square.hi < unit.normal)
    if lost.any() and check.verdict == FAIL and lost[check.at]:
        return replace(check, verdict=INCONCLUSIVE, reason="underflow")
    if lost.any() and check.verdict != FAIL and bool(np.all(lost | ~kept)):
        return replace(check, verdict=INCONCLUSIVE, reason="underflow")
    return check


def moved(theta: Array, c: Array, G: Array, eta: float, got: Array, unit: Unit, declared: Declared) -> Check:
    """``|theta' - (theta - eta c / sqrt(G'))| <= u (|theta'| + 5 eta |step|)``, its own G'; R29 where G' = 0."""
    said = declared.readings.get("R29")
    eps = 0.0 if said in (None, "0", "unmoved") else float(said)
    ulps = 5.0 + float(declared.arithmetic.get("rsqrt", 0) or 0)
    lost = (c != 0) & (unit.normal > G)
    check = _moved(theta, c, G, eta, eps, ulps, got, unit)
    if check.verdict == FAIL and eps:  # the target's own constant, as it is written or as float32 has it
        check = _moved(theta, c, G, eta, float(np.float32(eps)), ulps, got, unit)
    if check.verdict == FAIL and said is None:
        other = _moved(theta, c, G, eta, RELEASED_EPS, ulps, got, unit)
        if other.verdict != FAIL:
            return replace(check, verdict=INCONCLUSIVE, reason="reading R29: declare READINGS = {'R29': '1e-10'}")
    if lost.any() and (check.verdict != FAIL or lost[check.at]):
        return replace(check, verdict=INCONCLUSIVE, reason="underflow")
    return check


def _moved(theta: Array, c: Array, G: Array, eta: float, eps: float, ulps: float, got: Array, unit: Unit) -> Check:
    high = np.sqrt(G)
    safe = np.where(high > 0, high, 1.0)
    square = two_prod(high, high)
    low = ((G - square.hi) - square.lo) / (2 * safe)  # sqrt(G) = high + low
    root = high + eps
    tail = low + ((high - root) + eps)
    inverse = np.where(high > 0, 1.0, 0.0) if eps == 0 else np.ones_like(G)
    divisor = np.where(root > 0, root, 1.0)
    quotient = np.where(inverse > 0, c, 0.0) / divisor
    product = two_prod(quotient, divisor)
    rest = ((np.where(inverse > 0, c, 0.0) - product.hi) - product.lo - quotient * tail) / divisor
    step = times(Pair(quotient, rest), eta)
    expected = add(theta, negative(step))
    size = np.abs(step.hi)
    lost = 4 * unit.tiny * (eta + 1)
    bound = unit.u * (np.abs(got) + ulps * size) + np.where(size > 0, lost, 0.0)
    bound = np.where(size > 0, bound, 0.0)
    rule = "|theta' - (theta - eta c / sqrt(G'))| <= u (|theta'| + 5 eta |step|)"
    used = np.where(inverse > 0, c, 0.0)
    return t0.forward(
        "theta", "7:9", rule, got, expected, bound, truth=lambda: enclose.moved(theta, used, G, eta, eps)
    )


def _mean_magnitude(p: Pair, part: Array) -> Pair:
    """|p|_1 / d over one tensor, as a pair."""
    signs = np.where(p.hi[part] < 0, -1.0, 1.0)
    summed = total(np.stack([np.abs(p.hi[part]), signs * p.lo[part]], -1).ravel()).value
    return divide(summed, float(len(part)))


def sign_step(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """Judge x' = x - Delta and e' = p - Delta, Delta = (|p|_1 / d) sign p, p = gamma g + e.

    ``|Delta_i - s sign p_i| <= (d + 4) u s``, s = |p|_1 / d, plus the rounding of the subtraction and of p; a sign is
    undecided where ``|p_i| <= 2u (|gamma g_i| + |e_i|)``; ``|x' - e' - (x - p)| <= 3u (|x| + |p| + s)`` (tolerances).
    With R34 declared, s and d are those of the tensor that holds i (`tensors`).
    """
    x, e, g = (t0.wide(case.arguments[n]) for n in ("x", "e", "g"))
    shape = {"x": x.shape, "e": x.shape}
    checks = t0.outputs(case, result, shape)
    if t0.broken(checks) or t0.broken(checks := [*checks, *finite(result, shape, "S1:6")]):
        return tuple(checks)
    arrays = [np.asarray(result[n]) for n in shape]
    unit = max((unit_of(a, declared) for a in arrays), key=lambda unit: unit.u)
    gamma, sizes = hyper(case, "gamma"), tensors(len(x), declared)
    signed = Signed.of(e, g, gamma, unit, "exact" in case.flags, sizes)
    return (*checks, *signed.judge(x, *map(t0.wide, arrays)))


def tensors(d: int, declared: Declared) -> list[int]:
    """Return the sizes of the tensors that are scaled one by one (R34): one, of size d, unless declared otherwise.

    ``READINGS = {"R34": "2,3"}`` gives them in order, repeated until d is reached, the last one cut short: tensors of
    2, 3, 2, 3, ... entries; so "4" means tensors of four. They are never guessed: with tensors of one entry each,
    Delta = p would be right, so some partition agrees with nearly any Delta.

    >>> tensors(9, Declared(readings={"R34": "2,3"})), tensors(9, Declared())
    ([2, 3, 2, 2], [9])
    """
    said = declared.readings.get("R34", "")
    words = [int(word) for word in said.replace(" ", "").split(",") if word.isdigit() and int(word) > 0]
    sizes: list[int] = []
    while words and sum(sizes) < d:
        sizes.append(min(words[len(sizes) % len(words)], d - sum(sizes)))
    return sizes or [d]


class Signed:
    """p, its scaled sign Delta, and what rounding may do to both."""

    def __init__(self, p: Pair, product: Array, e: Array, unit: Unit, exact: bool, sizes: Sequence[int] = ()) -> None:
        """Prepare Delta and its bound from p = gamma g + e, ``product`` = |gamma g|, tensor by tensor (R34)."""
        d, sizes = len(e), list(sizes) or [len(e)]
        self.p, self.unit, self.d, self.sizes = p, unit, d, sizes
        self.given: tuple[Array, Array, float] | None = None  # g, e, gamma
        self.own = 2 * unit.u * (product + np.abs(e)) + unit.tiny * (product > 0)  # (d,) what rounding may do to p
        whole = _representable(product, unit)
        zero = (p.hi == 0) & (whole | (product == 0))
        self.unsure = (np.abs(p.hi) <= self.own) & ~zero
        parts = np.split(np.arange(d), np.cumsum(sizes)[:-1])
        means = [_mean_magnitude(p, part) for part in parts]
        s = Pair(*(np.repeat([float(getattr(mean, half)) for mean in means], sizes) for half in ("hi", "lo")))
        self.s = s.hi  # (d,)
        shaken = np.repeat([float(self.own[part].mean()) for part in parts], sizes)
        self.room = (np.repeat(sizes, sizes) + 4) * unit.u * self.s + shaken + unit.tiny  # (d,)
        self.Delta = Pair(np.sign(p.hi) * s.hi, np.sign(p.hi) * s.lo)
        powers = all(n & (n - 1) == 0 for n in sizes) and not p.lo.any() and bool(np.all(p.hi != 0))
        self.exact = exact and whole and powers and adds_exactly(p.hi, np.abs(p.hi).sum(), unit.u)

    @classmethod
    def of(cls, e: Array, g: Array, gamma: float, unit: Unit, exact: bool, sizes: Sequence[int] = ()) -> Signed:
        """Form p = gamma g + e in pairs."""
        product = two_prod(g, gamma)
        made = cls(add(product, e), np.abs(product.hi), e, unit, exact, sizes)
        made.given = (g, e, gamma)
        return made

    def judge(self, x: Array, new_x: Array, new_e: Array) -> tuple[Check, ...]:
        """Return the checks of lines 5, 6, 7: the first that is broken names the line."""
        at_x, room_x = self.difference(x, new_x), self.room + self.unit.u * np.abs(new_x)
        at_e, room_e = self.difference(self.p, new_e), self.room + self.unit.u * np.abs(new_e) + self.own
        if self.exact:  # what this precision can hold does not round
            room_x, room_e = (
                np.where(_representable(add(start, negative(self.Delta)).hi, self.unit), 0.0, room)
                for start, room in ((x, room_x), (self.p, room_e))
            )
        kept = add(add(new_x, -new_e), add(negative(pair(x)), self.p))
        conserved = (
            np.abs(kept.hi)
            <= 3 * self.unit.u * (np.abs(x) + np.abs(self.p.hi) + self.s) + 4 * self.unit.tiny + self.own
        )
        size = np.abs(x) + np.abs(self.p.hi) + np.abs(new_x) + np.abs(new_e)  # of whatever Delta the target took
        consistent = np.abs(kept.hi) <= 8 * self.unit.u * size + self.own
        line_x, line_e = self._lines(
            bool((at_x[0] <= room_x).all()), bool((at_e[0] <= room_e).all()), bool(consistent.all())
        )
        tier, tier_e = ("T2" if np.any(room) else "T1" for room in (room_x, room_e))
        rule = "|Delta_i - s sign p_i| <= (d + 4) u s"
        probable = self._probable(line_x, rule, new_x, at_x, room_x) if tier == "T2" else ()
        return (
            self._certified(self._check("x", line_x, tier, rule, new_x, at_x, room_x), at_x[0], room_x, new_x, x),
            self._certified(
                self._check("e", line_e, tier_e, rule + " + u |e'|", new_e, at_e, room_e), at_e[0], room_e, new_e
            ),
            self._whole(self._conservation(kept.hi, conserved, x), kept.hi, x, new_x, new_e),
            *probable,
        )

    def _probable(
        self, line: str, rule: str, new_x: Array, measured: tuple[Array, Array], room: Array
    ) -> tuple[Check, ...]:
        """``min(d, 6 sqrt d) + 4`` in place of d + 4 for x' (T3): a warning only."""
        d = np.repeat(self.sizes, self.sizes)
        less = room - (d - np.minimum(d, 6 * np.sqrt(d))) * self.unit.u * self.s
        if (d <= 36).all() or not (measured[0] <= room).all():
            return ()
        return (self._check("x", line, "T3", rule.replace("(d + 4)", "(6 sqrt d + 4)"), new_x, measured, less),)

    def _certified(self, check: Check, gap: Array, room: Array, got: Array, *start: Array) -> Check:
        """Enclose ``|got - (start - Delta)|``; without ``start`` it is p."""
        if self.given is None:
            return audit(check, gap, room, None)
        g, e, gamma = self.given
        first = start or (g, e)
        return audit(
            check, gap, room, lambda: enclose.signed(first, got, (g, e), gamma, self.sizes, self.unsure), gap=True
        )

    def _whole(self, check: Check, left: Array, x: Array, new_x: Array, new_e: Array) -> Check:
        """Enclose ``|x' - e' - (x - p)|``."""
        bound = 3 * self.unit.u * (np.abs(x) + np.abs(self.p.hi) + self.s) + 4 * self.unit.tiny + self.own
        if self.given is None:
            return audit(check, np.abs(left), bound, None)
        g, e, gamma = self.given
        return audit(
            check, np.abs(left), bound, lambda: enclose.conserved(x, e, g, gamma, new_x, new_e), gap=True
        )

    @staticmethod
    def _lines(x_holds: bool, e_holds: bool, conserved: bool) -> tuple[str, str]:
        if x_holds or e_holds:
            return "S1:6", "S1:7"
        return ("S1:5", "S1:5") if conserved else ("S1:4", "S1:4")

    def difference(self, start: Any, got: Array) -> tuple[Array, Array]:
        """Return ``|got - (start - Delta)|``, the best over the signs that are open, and the expected value, (d,)."""
        choices = []
        for Delta in (self.Delta, *(0.0 * self.s, self.s, -self.s)):
            choices.append(apart(got, add(start, negative(Delta))))
        gap = np.where(self.unsure, np.min(choices, axis=0), choices[0])
        return gap, add(start, negative(self.Delta)).hi

    @staticmethod
    def _check(
        stage: str, line: str, tier: str, rule: str, got: Array, measured: tuple[Array, Array], room: Any
    ) -> Check:
        gap, expected = measured
        room = np.broadcast_to(room, gap.shape)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = np.where(gap == 0, 0.0, gap / room)
        at = int(np.argmax(ratio))
        verdict = FAIL if ratio[at] > 1 else "pass"
        return Check(
            stage,
            tier,
            line,
            rule,
            float(ratio[at]),
            verdict,
            "",
            (at,),
            float(got[at]),
            float(expected[at]),
            float(room[at]),
        )

    def _conservation(self, left: Array, holds: Array, x: Array) -> Check:
        rule = "|x' - e' - (x - p)| <= 3u (|x| + |p| + s)"
        if holds.all():
            return t0.passed("conservation", "T2", "S1:7", rule)
        at = int(np.argmax(~holds))
        return t0.failed(
            "conservation", "T2", "S1:7", rule, "x' - e' is not x - p", (at,), got=float(left[at]), expected=0.0
        )
