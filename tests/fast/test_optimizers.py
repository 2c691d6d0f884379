"""The optimizers: as the reference, in every storage; a step that is interrupted anywhere has not happened."""

import sys

import numpy as np
import pytest

import efcp_ref
from efcp_ref import fast
from efcp_ref.fast.optimizers import base

RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _the_same_numbers_whatever_ran_before():
    RNG.bit_generator.state = np.random.default_rng(7).bit_generator.state
SHAPES = [(4, 3), (5,), (2, 3, 2)]
Q0 = [RNG.standard_normal((3, 2)), RNG.standard_normal((6, 2))]
SMALL = {
    "sparse_mfac": {"d": 29, "m": 3, "lam": 0.1, "block_size": 10, "density": 0.3},
    "dense_mfac": {"d": 29, "m": 3, "lam": 0.1},
    "low_rank_mfac": {"shapes": SHAPES, "m": 3, "lam": 0.1, "rank": 2, "Q0": Q0},
    "sparse_ggt": {"d": 29, "m": 3, "eps": 0.1, "cutoff": 1e-12, "k": 5},
    "dense_ggt": {"d": 29, "m": 3, "eps": 0.1, "cutoff": 1e-12},
    "topk_sgd": {"d": 29, "k": 4},
    "adagrad_ef": {"d": 29, "k": 4},
    "ef_signsgd": {"d": 29, "gamma": 0.1},
}  # fmt: skip


def gradients(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 29))


def equal(one, other):
    """Whether two states are the same, bit by bit."""
    assert one.keys() == other.keys()
    return all(np.array_equal(np.asarray(one[key]), np.asarray(other[key])) for key in one)


@pytest.mark.parametrize("name", SMALL)
def test_as_the_reference_in_float64(name, tiny):
    ours, theirs = (getattr(module, name)(**SMALL[name]) for module in (fast, efcp_ref))
    for g in gradients(11):
        np.testing.assert_allclose(ours.step(g), theirs.step(g), rtol=1e-9, atol=1e-12)
    mine, reference = ours.state(), theirs.state()
    assert list(mine) == list(reference)
    for key in reference:
        assert np.asarray(mine[key]).dtype.kind == np.asarray(reference[key]).dtype.kind
        np.testing.assert_allclose(mine[key], reference[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "ef_signsgd"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_as_the_reference_from_the_same_state_in_less(name, dtype, tiny):
    """In float32 and bfloat16 every step starts from the reference's state: what is stored is the same rounding."""
    if dtype == "bfloat16" and not name.startswith("sparse"):
        with pytest.raises(ValueError, match="dtype = 'bfloat16', must be one of"):
            getattr(fast, name)(**SMALL[name], dtype=dtype)
        return
    ours, theirs = getattr(fast, name)(**SMALL[name], dtype=dtype), getattr(efcp_ref, name)(**SMALL[name])
    for g in gradients(8).astype(np.float32):
        ours.load(theirs.state())
        u, expected = ours.step(g), theirs.step(g)
        assert u.dtype == np.float32
        room = {"float32": 2e-4, "bfloat16": 3e-2}[dtype] * abs(expected).max()
        np.testing.assert_allclose(u, expected, rtol=0, atol=room)


def test_r14_bfloat16_is_stored_and_its_rounding_waits_in_the_error():
    ours = fast.sparse_mfac(d=2, m=1, lam=1.0, density=0.5, dtype="bfloat16")
    ours.step(np.array([1.0048828, 0.0], np.float32))
    state = ours.state()
    assert state["values"].dtype.name == "bfloat16"
    assert float(state["values"][0, 0]) == 1.0078125
    assert state["xi"][0] == np.float32(1.0048828) - np.float32(1.0078125)


def test_a_number_beyond_bfloat16_is_refused():
    ours = fast.sparse_mfac(d=2, m=1, lam=1.0, density=0.5, dtype="bfloat16")
    with pytest.raises(ValueError, match="too large for the window"):
        ours.step(np.array([np.finfo(np.float32).max, 0.0], np.float32))
    assert ours.state()["t"] == 0


class Interrupt(KeyboardInterrupt):
    """Ctrl-C at a chosen line."""


def interrupted(optimizer, g, at):
    """Run a step, raise at the ``at``-th line executed in our package; return whether there was such a line."""
    seen = 0

    def local(frame, event, argument):
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == at:
                raise Interrupt
        return local

    def enter(frame, event, argument):
        return local if "efcp_ref" in frame.f_code.co_filename else None

    sys.settrace(enter)
    try:
        optimizer.step(g)
        return False
    except Interrupt:
        return True
    finally:
        sys.settrace(None)


@pytest.mark.parametrize("name", SMALL)
def test_an_interrupt_at_any_line_leaves_the_step_before(name):
    optimizer, twin = (getattr(fast, name)(**SMALL[name]) for _ in range(2))
    for g in gradients(5):
        optimizer.step(g)
        twin.step(g)
    before, last = optimizer.state(), gradients(6)[5]
    at = 1
    while interrupted(optimizer, last, at):
        assert equal(optimizer.state(), before), f"line {at}"
        at += 1
    assert at > 15
    assert not equal(optimizer.state(), before)  # the run without an interrupt went through
    expected = twin.step(last)
    assert equal(optimizer.state(), twin.state())
    optimizer.load(before)
    np.testing.assert_allclose(optimizer.step(last), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["sparse_mfac", "sparse_ggt"])
def test_two_errors_take_turns_but_not_after_an_interrupt(name):
    """A step writes the error of the step before last; a thread of an interrupted step may still be writing there."""
    optimizer = getattr(fast, name)(**SMALL[name])
    places = []
    for g in gradients(4):
        optimizer.step(g)
        places.append(id(optimizer._state.xi))
    assert len(set(places)) == 2
    with pytest.raises(ValueError, match="g holds"):
        optimizer.step(np.full(29, np.nan))
    assert optimizer._state.room is None


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    "wrong", [np.full(29, np.nan), np.full(29, np.inf), np.ones(28), np.ones((29, 1)), np.array(["x"] * 29)]
)
def test_a_bad_gradient_is_refused_and_changes_nothing(name, wrong):
    optimizer = getattr(fast, name)(**SMALL[name])
    optimizer.step(gradients(1)[0])
    before = optimizer.state()
    with pytest.raises((TypeError, ValueError), match="g has|g holds"):
        optimizer.step(wrong)
    assert equal(optimizer.state(), before)


@pytest.mark.parametrize("name", SMALL)
def test_states_carry_over_both_ways(name):
    """The reference takes the twin's state and the twin the reference's; then both make the same step."""
    ours, theirs = (getattr(module, name)(**SMALL[name]) for module in (fast, efcp_ref))
    for g in gradients(4):
        ours.step(g)
    theirs.load(ours.state())
    again = getattr(fast, name)(**SMALL[name])
    again.load(theirs.state())
    assert equal(again.state(), ours.state())
    g = gradients(5)[4]
    np.testing.assert_allclose(again.step(g), theirs.step(g), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_a_bad_state_is_refused_and_changes_nothing(name):
    optimizer = getattr(fast, name)(**SMALL[name])
    for g in gradients(3):
        optimizer.step(g)
    before = optimizer.state()
    for key in before:
        with pytest.raises(KeyError, match=f"state lacks {key}"):
            optimizer.load({k: v for k, v in before.items() if k != key})
        bad = [np.full(np.shape(before[key]), np.nan), "nonsense"] + ([] if key in ("t", "row") else [np.zeros(999)])
        for value in bad:
            with pytest.raises((TypeError, ValueError)):
                optimizer.load({**before, key: value})
        assert equal(optimizer.state(), before)


def test_rows_that_break_the_layout_are_refused():
    optimizer = fast.sparse_mfac(**SMALL["sparse_mfac"])
    state = optimizer.state()
    state["indices"][1, 0] = state["indices"][1, 1]
    with pytest.raises(ValueError, match="indices row"):
        optimizer.load(state)
    with pytest.raises(ValueError, match="indices has shape"):
        optimizer.load({**optimizer.state(), "indices": state["indices"][:2] * 0 + optimizer.state()["indices"][:2],
                        "values": state["values"][:2]})  # fmt: skip


def test_strided_and_readonly_gradients_are_valid():
    g = np.zeros((29, 2))
    g[:, 0] = gradients(1)[0]
    strided = g[:, 0]
    strided.setflags(write=False)
    for name in SMALL:
        one, other = (getattr(fast, name)(**SMALL[name]) for _ in range(2))
        np.testing.assert_array_equal(one.step(strided), other.step(strided.copy()))


def test_ring_and_slots():
    """After any number of steps, gradient s lies in row s mod m and in slot s mod (m + 1)."""
    for m in (1, 2, 5):
        for t in range(20):
            rows, places = base.ages(t % m, t % (m + 1), m)
            stored = np.arange(t - m, t)  # the last m steps, oldest first
            np.testing.assert_array_equal(rows, stored % m)
            np.testing.assert_array_equal(places, stored % (m + 1))
            np.testing.assert_array_equal(base.slots(t % m, t % (m + 1), m)[rows], places)
