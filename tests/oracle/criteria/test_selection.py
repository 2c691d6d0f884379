"""Top-k, blockwise Top-k and error feedback: any valid selection passes, each mistake is blamed on its line."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, Case, Declared, verdict_of
from efcp_ref.oracle.criteria.selection import block_top_k, error_feedback, top_k

NONE = Declared()
BF16 = ml_dtypes.bfloat16


def case(operation, a, *flags):
    return Case(operation, "generic", "", 0, 0, a, frozenset(flags))


def single(a):
    return np.asarray(a).astype(np.float32).astype(np.float64)


def accumulator(rng, d):
    """Generic, with ties, with zeros, tiny or huge."""
    kind = rng.integers(5)
    a = [
        rng.standard_normal(d),
        rng.integers(-2, 3, d) * 1.0,
        np.zeros(d),
        1e-40 * rng.standard_normal(d),
        10.0 ** rng.uniform(-12, 12, d),
    ][kind]
    return single(a)


def chosen(a, k, rng):
    """k largest magnitudes, ties broken and entries ordered at random."""
    order = np.lexsort((rng.random(len(a)), -np.abs(a)))
    return rng.permutation(order[:k])


def blocks_of(d, size, density):
    share = Fraction(str(density))
    return [
        (s, min(s + size, d), -(-(min(s + size, d) - s) * share.numerator // share.denominator))
        for s in range(0, d, size)
    ]


def block_chosen(a, size, density, rng):
    return np.concatenate([s + chosen(a[s:e], k, rng) for s, e, k in blocks_of(len(a), size, density)]).astype(np.int32)


def feedback(a, dtype, rng, store=None, **change):
    """Lines 5 to 7 in ``dtype``; ``store`` rounds the values; ``change`` plants a mistake."""
    xi, g = a["xi"].astype(dtype), a["g"].astype(dtype)
    total = change["total"](xi, g) if "total" in change else xi + g
    pick = change.get("pick", lambda v: block_chosen(v, a["block_size"], a["density"], rng))
    indices = pick(total)
    values = change.get("values", lambda v: v)(total[indices])
    values = values.astype(store) if store else values
    left = total.copy()
    left[indices] -= values.astype(dtype)
    return {
        "indices": indices,
        "values": values,
        "xi": change["left"](left, total, indices, xi) if "left" in change else left,
    }


def step_case(rng, d=40, *flags):
    a = {
        "xi": single(rng.standard_normal(d)),
        "g": single(rng.standard_normal(d)),
        "block_size": int(rng.integers(3, 20)),
        "density": 0.3,
    }
    return case("error_feedback", a, *flags)


def blamed(checks):
    return next((c.stage, c.line) for c in checks if c.verdict == FAIL)


def test_any_valid_selection_passes():
    rng = np.random.default_rng(1)
    for _ in range(400):
        d = int(rng.integers(1, 40))
        a, k = accumulator(rng, d), int(rng.integers(0, d + 1))
        for dtype in (np.float32, np.float64, BF16):
            indices = chosen(a, k, rng)
            assert (
                verdict_of(
                    top_k(
                        case("top_k", {"a": a, "k": k}), {"indices": indices, "values": a[indices].astype(dtype)}, NONE
                    )
                )
                == PASS
            )
        size, density = int(rng.integers(1, d + 3)), float(rng.choice([0.05, 0.3, 0.5, 1.0]))
        indices = block_chosen(a, size, density, rng)
        arguments = {"a": a, "block_size": size, "density": density}
        assert (
            verdict_of(block_top_k(case("block_top_k", arguments), {"indices": indices, "values": a[indices]}, NONE))
            == PASS
        )


@pytest.mark.parametrize(
    ("indices", "stage", "words"),
    [
        ([0, 1], "indices", "|a[4]| = 9 is dropped"),
        ([0, 0], "indices", "position 0 is chosen 2 times"),
        ([4, 5], "indices", "indices[1] is 5, must be in 0..4"),
        ([-1, 2], "indices", "indices[0] is -1"),
        ([2, 4, 0], "indices", "3 entries are kept, must be 2"),
        ([2.0, 4.0], "indices", "must hold integers"),
    ],
)
def test_wrong_positions_are_said_in_words(indices, stage, words):
    a = np.array([1.0, -2.0, 3.0, 0.5, -9.0])
    values = a[np.clip(np.array(indices).astype(int), 0, 4)]
    checks = top_k(case("top_k", {"a": a, "k": 2}), {"indices": np.array(indices), "values": values}, NONE)
    check = next(c for c in checks if c.verdict == FAIL)
    assert (check.stage, check.line) == (stage, "K:1")
    assert words in check.reason


def test_planted_bugs_of_top_k():
    rng = np.random.default_rng(2)
    for _ in range(50):
        a = single(rng.standard_normal(30))
        right, signed = chosen(a, 8, rng), np.argsort(-a)[:8]
        c = case("top_k", {"a": a, "k": 8})
        wrong = {
            "signed": (signed, a[signed]),
            "absolute": (right, np.abs(a[right])),
            "shuffled": (right, np.roll(a[right], 1)),
            "smallest": (np.argsort(np.abs(a))[:8], np.sort(a)[:8]),
        }
        for name, (indices, values) in wrong.items():
            stage = "indices" if name in ("signed", "smallest") else "values"
            assert blamed(top_k(c, {"indices": indices, "values": values}, NONE)) == (stage, "K:1"), name
        near = a[right] * (1 + 2.0**-23)
        assert blamed(top_k(c, {"indices": right, "values": near}, NONE)) == ("values", "K:1")


def test_planted_bugs_of_block_top_k():
    rng = np.random.default_rng(3)
    for _ in range(50):
        a = single(rng.standard_normal(25) * np.linspace(1, 9, 25))
        c = case("block_top_k", {"a": a, "block_size": 8, "density": 0.3})  # 3 + 3 + 3 + 1
        right = block_chosen(a, 8, 0.3, rng)

        def said(indices, values=None, c=c, a=a):
            return blamed(
                block_top_k(c, {"indices": indices, "values": a[indices] if values is None else values}, NONE)
            )

        assert said(np.sort(chosen(a, 10, rng))) == ("indices", "K:2")  # global instead of blockwise
        assert said(np.append(np.argsort(-a[:24].reshape(3, 8), axis=1)[:, :3], 24), a[:10]) == (
            "indices",
            "K:3",
        )  # relative
        assert said(right[:-1]) == ("indices", "K:2")
        assert said(right[::-1]) == ("indices", "K:3")
        floor = np.concatenate([s + chosen(a[s : s + 8], 2, rng) for s in (0, 8, 16)])
        assert said(floor) == ("indices", "K:2")


def test_a_count_that_only_floating_point_gives_is_inconclusive():
    """ceil(.07 * 100) is 7 exactly and 8 in floating point (R11)."""
    a = single(np.random.default_rng(4).standard_normal(200))
    arguments = {"a": a, "block_size": 100, "density": 0.07}
    for k, flags, verdict in (
        (7, ("density",), PASS),
        (8, ("density",), INCONCLUSIVE),
        (8, (), FAIL),
        (9, ("density",), FAIL),
    ):
        indices = np.concatenate([s + np.argsort(-np.abs(a[s : s + 100]))[:k] for s in (0, 100)])
        checks = block_top_k(case("block_top_k", arguments, *flags), {"indices": indices, "values": a[indices]}, NONE)
        assert verdict_of(checks) == verdict
        assert verdict != INCONCLUSIVE or checks[-1].reason == "density"


def test_nan_by_the_declared_policy():
    a = np.array([1.0, np.nan, np.inf, -5.0, 2.0])
    for policy, right in (("largest", [[1, 2]]), ("smallest", [[2, 3]]), ("undefined", [[1, 2], [2, 3]])):
        for indices in ([1, 2], [2, 3], [1, 3], [0, 4]):
            checks = top_k(
                case("top_k", {"a": a, "k": 2}, "nan"),
                {"indices": np.array(indices), "values": a[indices]},
                Declared(nan=policy),
            )
            assert (verdict_of(checks) == PASS) == (indices in right), (policy, indices)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("store", [None, BF16])
def test_correct_error_feedback_passes(dtype, store):
    rng = np.random.default_rng(5)
    for _ in range(150):
        c = step_case(rng)
        if rng.random() < 0.5:
            c.arguments["xi"][:], c.arguments["g"][:] = accumulator(rng, 40), accumulator(rng, 40)
        r = feedback(c.arguments, dtype, rng, store)
        checks = error_feedback(c, r, NONE)
        assert verdict_of(checks) == PASS, checks
        r["values"] = r["values"].astype(dtype)  # stored as bfloat16, shown in full precision: to be declared
        assert verdict_of(error_feedback(c, r, Declared({"storage": "bfloat16"} if store else {}))) == PASS


MISTAKES = {
    "no feedback": ({"total": lambda xi, g: g.copy()}, "1:5"),
    "half the feedback": ({"total": lambda xi, g: xi / 2 + g}, "1:5"),
    "difference": ({"total": lambda xi, g: g - xi}, "1:5"),
    "xi unchanged": ({"left": lambda left, a, i, xi: xi}, "1:5"),
    "signed Top-k": (
        {"pick": lambda a: np.concatenate([s + np.argsort(-a[s : s + 10])[:3] for s in range(0, 40, 10)])},
        "1:6",
    ),
    "absolute values": (
        {"values": np.abs, "left": lambda left, a, i, xi: np.where(np.isin(np.arange(40), i), 0, a)},
        "1:6",
    ),
    "scaled values": ({"values": lambda v: v * 2}, "1:6"),
    "not cleared": ({"left": lambda left, a, i, xi: a}, "1:7"),
    "all cleared": ({"left": lambda left, a, i, xi: 0 * a}, "1:7"),
    "negative residual": ({"left": lambda left, a, i, xi: -left}, "1:7"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_of_error_feedback_are_blamed_on_their_line(name):
    rng, (change, line) = np.random.default_rng(6), MISTAKES[name]
    for dtype in (np.float32, np.float64):
        for _ in range(30):
            c = step_case(rng)
            c.arguments["block_size"] = 10
            assert blamed(error_feedback(c, feedback(c.arguments, dtype, rng, **change), NONE))[1] == line


def test_R14_the_residual_is_taken_after_rounding():
    """a = 1.0048828: bf16(a) = 1.0078125, residual -2.9e-3."""
    a = {"xi": np.array([0.0048828125, 0.0]), "g": np.array([1.0, 0.0]), "block_size": 2, "density": 0.5}
    rng = np.random.default_rng(7)
    right = feedback(a, np.float32, rng, BF16)
    assert right["xi"][0] == np.float32(1.0048828125) - np.float32(1.0078125)
    assert verdict_of(error_feedback(case("error_feedback", a, "exact"), right, NONE)) == PASS
    before = dict(right, xi=np.zeros(2, np.float32))
    assert blamed(error_feedback(case("error_feedback", a, "exact"), before, NONE)) == ("xi", "1:7")


def test_exact_sums_ask_for_equality():
    rng = np.random.default_rng(8)
    a = {
        "xi": rng.integers(-99, 99, 20) * 1.0,
        "g": rng.integers(-99, 99, 20) * 1.0 + 0.5,
        "block_size": 20,
        "density": 0.2,
    }
    r = feedback(a, np.float32, rng)
    checks = error_feedback(case("error_feedback", a, "exact"), r, NONE)
    assert verdict_of(checks) == PASS
    assert {c.tier for c in checks} == {"T0", "T1"}
    off = int(np.flatnonzero(r["xi"])[0])
    r["xi"][off] = np.nextafter(r["xi"][off], np.float32(1e9))
    assert verdict_of(error_feedback(case("error_feedback", a, "exact"), r, NONE)) == FAIL
    assert verdict_of(error_feedback(case("error_feedback", a), dict(r, xi=np.full(20, np.nan)), NONE)) == FAIL
