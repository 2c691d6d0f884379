"""Units that flush subnormal numbers: a declaration saves a correct one from a fail, and saves no wrong one."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efcp_ref.contract import NAMES, OPTIMIZERS
from efcp_ref.oracle import flush
from efcp_ref.oracle.cases import FIXED, generate
from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, UNITS, Case, Check, Declared
from efcp_ref.oracle.dump import Dump
from efcp_ref.oracle.judge import judge_case
from efcp_ref.oracle.replay import replay
from efcp_ref.oracle.targets import Local

torch = pytest.importorskip("torch")
SAYS = Declared({"flush_to_zero": True, "denormals_are_zero": True})
CORRECT = Path(__file__).parents[1] / "acceptance" / "correct.py"
SINGLE = UNITS["float32"]


def _correct() -> Any:
    if "correct" not in sys.modules:
        spec = importlib.util.spec_from_file_location("correct", CORRECT)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["correct"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["correct"])
    return sys.modules["correct"].Implementation()


@contextmanager
def flushing() -> Iterator[None]:
    """This thread's unit flushes what it reads and what it returns."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def flushed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, or the optimizer's class, computed by a unit that flushes."""

    def call(*given: Any) -> Any:
        with flushing():
            return function(*given)

    return call


def optimizer(kind: type) -> Callable[..., Any]:
    """An optimizer every step of which flushes."""

    class Flushing:
        def __init__(self, *given: Any, **named: Any) -> None:
            self.it = kind(*given, **named)

        def step(self, g: np.ndarray) -> Any:
            return flushed(self.it.step)(g)

        def state(self) -> Any:
            return self.it.state()

    return Flushing


def test_the_unit_really_flushes() -> None:
    """A subnormal sum of normal numbers, and a subnormal number itself."""
    a, b = np.full(1000, 2.0**-126 * 1.5, np.float32), np.full(1000, -(2.0**-126), np.float32)
    with flushing():
        assert not (a + b).any()
        assert not (np.full(1000, 2.0**-140, np.float32) * np.float32(2.0**20)).any()
    assert (a + b).all()


SHOWN = {  # operations whose fixed cases show that a correct unit flushes
    "top_k", "block_top_k", "error_feedback", "lcg", "mfac_direction", "sparse_mfac_direction", "adagrad_step",
    "sign_step", "topk_sgd", "sparse_mfac", "low_rank_mfac", "sparse_ggt", "adagrad_ef", "ef_signsgd",
}  # fmt: skip


@pytest.mark.parametrize("operation", NAMES)
def test_only_the_declaration_saves_a_correct_unit(operation: str) -> None:
    """Fixed cases in float32: with the declaration nothing fails, and most is decided; without it, some fail."""
    function = getattr(_correct(), operation)
    target = optimizer(function) if operation in OPTIMIZERS else flushed(function)
    found: dict[Any, list[str]] = {}
    for index, recipe in enumerate(FIXED[operation]):
        if recipe.flags & {"large", "nan"} or not ("subnormal" in recipe.label or index % 4 == 0):
            continue
        case = generate(operation, 0, index).with_dtype("float32")
        for declared in (SAYS, Declared()):
            with np.errstate(all="ignore"):
                verdict, _ = judge_case(Local({operation: target}, declared), case)
            found.setdefault(declared is SAYS, []).append(verdict.verdict)
    assert FAIL not in found[True]
    assert found[True].count(PASS) > len(found[True]) / 2
    assert FAIL in found[False] or operation not in SHOWN


def test_a_wrong_unit_that_flushes_still_fails() -> None:
    """Numbers of ordinary size are not excused: a result that is a little wrong, or zero, fails as ever."""
    rng = np.random.default_rng(0)
    g = rng.standard_normal(20)
    case = Case("top_k", "generic", "", 0, 0, {"a": g, "k": 4}).with_dtype("float32")
    best = np.argsort(-np.abs(g), kind="stable").astype(np.int32)
    for wrong in (best[1:5], best[-4:]):
        target = Local({"top_k": lambda a, k, wrong=wrong: (wrong, a[wrong])}, SAYS)
        assert judge_case(target, case)[0].verdict == FAIL
    zero = Local({"top_k": lambda a, k: (best[:4], 0 * a[best[:4]])}, SAYS)
    assert judge_case(zero, case)[0].verdict == FAIL
    # One subnormal number among them: what is wrong elsewhere is undecided at most, and never a pass.
    mixed = Case("top_k", "generic", "", 0, 0, {"a": np.where(np.arange(20) == 3, 2.0**-140, g), "k": 4})
    target = Local({"top_k": lambda a, k: (best[-4:], a[best[-4:]])}, SAYS)
    assert judge_case(target, mixed.with_dtype("float32"))[0].verdict == INCONCLUSIVE


def test_a_wrong_shape_stays_wrong() -> None:
    """T0 is no question of rounding."""
    case = Case("top_k", "generic", "", 0, 0, {"a": np.full(5, 2.0**-140), "k": 2}).with_dtype("float32")
    target = Local({"top_k": lambda a, k: (np.zeros(1, np.int32), a[:1])}, SAYS)
    assert judge_case(target, case)[0].verdict == FAIL


@pytest.mark.parametrize(("value", "again"), [(2.0**-102, 1), (2.0**-103, 2), (0.0, 1)])
def test_sums_of_larger_numbers_are_never_subnormal(value: float, again: int) -> None:
    """The second look is taken below ``normal / u``: larger numbers are multiples of ``2 normal``."""
    fail, looks = Check("u", "T2", "1:8", "", 2.0, FAIL), []

    def judge(given: Any, returned: Any) -> tuple[Check, ...]:
        looks.append((given, returned))
        return (fail,)

    given = {"g": np.array([1.0, value], np.float32), "k": 3}
    found = flush.twice(judge, given, [np.float32([1])], SAYS, SINGLE)
    assert len(looks) == again
    assert found[0].verdict == (FAIL if again == 1 else INCONCLUSIVE)


def test_the_second_look_sees_zeros_and_changes_nothing_of_the_users() -> None:
    """Nested, of every storage; integers and hyper-parameters stay."""
    import ml_dtypes

    small = np.array([2.0**-130, 1.0, -(2.0**-127)])
    given = {"g": small.astype(np.float32), "i": np.array([1, 2]), "lam": 2.0**-140,
             "Q0": [small.astype(ml_dtypes.bfloat16)]}  # fmt: skip
    before = given["g"].copy()  # type: ignore[attr-defined]
    seen: list[Any] = []

    def judge(given: Any, returned: Any) -> tuple[Check, ...]:
        seen.append(given)
        return (Check("u", "T2", "1:8", "", 0.5, PASS if len(seen) == 2 else FAIL),)

    assert flush.twice(judge, given, {}, SAYS, SINGLE)[0].verdict == PASS
    assert seen[1]["g"].tolist() == [0, 1, 0]
    assert seen[1]["Q0"][0].astype(float).tolist() == [0, 1, 0]
    assert seen[1]["Q0"][0].dtype == ml_dtypes.bfloat16
    assert (seen[1]["i"].tolist(), seen[1]["lam"]) == ([1, 2], 2.0**-140)
    assert np.array_equal(given["g"], before)


@pytest.mark.parametrize("states", [True, False])
def test_a_dumped_run_that_flushes(tmp_path: Path, states: bool) -> None:
    """The same run twice: undeclared it fails at the first step whose numbers vanish, declared it passes."""
    rng = np.random.default_rng(3)
    gradients = (rng.standard_normal((8, 12)) * 2.0 ** rng.integers(-140, -124, (8, 12))).astype(np.float32)
    verdicts = {}
    for name, declared in (("says", SAYS.arithmetic), ("silent", {})):
        it = optimizer(_correct().ef_signsgd)(12, 0.5)
        with Dump(tmp_path / name, "ef_signsgd", d=12, gamma=0.5, declares={"ARITHMETIC": dict(declared)}) as dump:
            for g in gradients:
                u = it.step(g)
                dump.step(g, u, it.state() if states else None)
        verdicts[name] = replay(tmp_path / name, explain=False).verdict
    assert verdicts["says"] in ((PASS,) if states else (PASS, INCONCLUSIVE))
    assert verdicts["silent"] == FAIL
