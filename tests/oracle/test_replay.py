"""Dumps: written as a run goes on, read back whole or up to where they were cut; judged step by step."""

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import efcp_ref
from efcp_ref.cli import main
from efcp_ref.oracle import replay
from efcp_ref.oracle.dump import PREFIX, Dump, Reader
from efcp_ref.oracle.hostile import Hostile, Missing
from efcp_ref.oracle.mutants import MUTANTS
from efcp_ref.oracle.mutants.optimizers import SparseMFAC
from efcp_ref.oracle.targets import UsageError

SIZE = {"d": 12, "m": 3, "lam": 0.1, "block_size": 5, "density": 0.4}
Q0 = [np.float64([[1.0], [0.5], [-1.0]])]
SIZES = {
    "topk_sgd": {"d": 12, "k": 3}, "dense_mfac": {"d": 12, "m": 3, "lam": 0.1}, "sparse_mfac": SIZE,
    "low_rank_mfac": {"shapes": [(4, 3)], "m": 3, "lam": 0.1, "rank": 1, "Q0": Q0},
    "dense_ggt": {"d": 12, "m": 3, "eps": 0.1, "cutoff": 0.001},
    "sparse_ggt": {"d": 12, "m": 3, "eps": 0.1, "cutoff": 0.001, "k": 4}, "adagrad_ef": {"d": 12, "k": 3},
    "ef_signsgd": {"d": 12, "gamma": 0.1},
}  # fmt: skip


def gradients(steps, d=12, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((steps, d)).astype(dtype)


def write(path, optimizer="sparse_mfac", it=None, steps=10, wrong=None, start=0, states=True):
    """Dump a run of ``it``, one step of which ``wrong = (t, class)`` takes in its place."""
    size = SIZES[optimizer]
    it = it or getattr(efcp_ref, optimizer)(**size)
    with Dump(path, optimizer, **size) as dump:
        for t, g in enumerate(gradients(steps, 12), 1):
            if wrong and t == wrong[0]:
                other = wrong[1](**size)
                other.load(it.state())
                u = other.step(g.astype(float))
                it.load(other.state())
            else:
                u = it.step(g.astype(float))
            if t > start:
                dump.step(g, u, it.state() if states else None)
    return path


@pytest.fixture
def run(tmp_path):
    return write(tmp_path / "run.efcp")


# --- the dump


@pytest.mark.parametrize("optimizer", SIZES)
def test_what_is_read_is_what_was_written(optimizer, tmp_path):
    it, path = getattr(efcp_ref, optimizer)(**SIZES[optimizer]), tmp_path / "r"
    seen = []
    with Dump(path, optimizer, **SIZES[optimizer]) as dump:
        for g in gradients(7):
            u = it.step(g.astype(float))
            dump.step(g, u, it.state())
            seen.append((g, u, {n: np.array(v) for n, v in it.state().items()}))
    reader = Reader(path)
    read = list(reader.steps())
    assert (reader.optimizer, reader.ending, len(read)) == (optimizer, "", 7)
    for step, (g, u, state) in zip(read, seen, strict=True):
        assert step.g.tobytes() == g.tobytes()
        assert step.u.tobytes() == np.asarray(u).tobytes()
        assert step.state.keys() == state.keys()
        assert all(step.state[n].tobytes() == a.tobytes() and step.state[n].dtype == a.dtype for n, a in state.items())
    assert np.array_equal(reader.parameters.get("Q0", Q0)[0], Q0[0])


def test_only_what_changed_is_written(tmp_path):
    size = {"d": 4000, "m": 50, "lam": 0.1, "block_size": 4000, "density": 0.25}
    rows = {"indices": np.tile(np.arange(1000, dtype=np.int32), (50, 1)), "values": np.zeros((50, 1000))}
    state = {"t": 1, "row": 0, "xi": np.zeros(10), "S": np.zeros((50, 50)), **rows}
    g = np.zeros(4000)
    with Dump(tmp_path / "r", "sparse_mfac", **size) as dump:
        dump.step(g, np.zeros(10), state)
        first = (tmp_path / "r").stat().st_size
        state["values"][7] = 1.0
        dump.step(g, np.zeros(10), state)
        second = (tmp_path / "r").stat().st_size - first
    assert second < g.nbytes + 1000 * 12 + 3000 < first / 10
    assert list(Reader(tmp_path / "r").steps())[1].state["values"][7].all()


def test_what_was_dumped_is_a_copy_and_signs_of_zero_and_nan_count(tmp_path):
    state = {"t": 1, "xi": np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])}
    with Dump(tmp_path / "r", "topk_sgd", d=6, k=1) as dump:
        dump.step(np.zeros(6), np.zeros(6), state)
        state["xi"][0] = -0.0
        dump.step(np.zeros(6), np.zeros(6), state)
        state["xi"][1] = np.nan
        dump.step(np.zeros(6), np.zeros(6), state)
    one, two, three = (step.state["xi"] for step in Reader(tmp_path / "r").steps())
    assert (np.signbit(one[0]), np.signbit(two[0]), one[1]) == (False, True, 1.0)
    assert np.isnan(three[1])


def test_torch_tensors_and_bfloat16_are_taken(tmp_path):
    torch = pytest.importorskip("torch")
    with Dump(tmp_path / "r", "topk_sgd", d=2, k=1) as dump:
        u, state = torch.ones(2, requires_grad=True), {"t": 1, "xi": torch.ones(2, dtype=torch.bfloat16)}
        dump.step(torch.ones(2), u, state)
    step = next(Reader(tmp_path / "r").steps())
    assert (step.u.dtype, step.state["xi"].dtype.name) == (np.float32, "bfloat16")


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"optimizer": "sparse_mfca"}, UsageError, "did you mean sparse_mfac"),
        ({"density": None}, TypeError, "density is None"),
        ({"window": 3}, TypeError, "has no window"),
        ({"lam": "1e-3"}, TypeError, "lam is '1e-3'"),
        ({"declares": {"SOLVER": "qr"}}, UsageError, "SOLVER = 'qr'"),
        ({"m": 0}, ValueError, "parameter m is 0, must be an integer in 1"),
        ({"d": 10**30}, ValueError, "parameter d is 1000"),
        ({"d": 10**5000}, ValueError, "parameter d is int too long to be written"),
        ({"lam": 10**400}, ValueError, "parameter lam is 1000"),
        ({"lam": Fraction(10**400, 3)}, ValueError, "lam = Fraction.* must be in the range of float64"),
        ({"lam": np.ma.masked}, ValueError, "lam = masked is a masked array with hidden entries"),
        ({"declares": 5}, TypeError, r"declares = 5, must be a mapping such as {'SOLVER': 'lu'}"),
        ({"declares": 0}, TypeError, "declares = 0, must be a mapping"),
        ({"declares": ["SOLVER"]}, TypeError, r"declares = \['SOLVER'\], must be a mapping"),
        ({"lam": -1.0}, ValueError, "parameter lam is -1.0"),
        ({"density": 1.5}, ValueError, r"density is 1.5, must be a number in \(0, 1\]"),
    ],
)
def test_wrong_use_is_said_before_a_file_is_made(how, error, words, tmp_path):
    with pytest.raises(error, match=words):
        Dump(tmp_path / "r", **{"optimizer": "sparse_mfac", **SIZE, **how})
    assert not (tmp_path / "r").exists()
    with pytest.raises(TypeError, match=r"topk_sgd needs k: its parameters are d, k"):
        Dump(tmp_path / "r", "topk_sgd", d=3)


def test_parameters_are_checked_as_a_replay_will_read_them(tmp_path):
    for name, value in (("Q0", [np.ones(3)]), ("shapes", [(0, 3)])):
        with pytest.raises(ValueError, match=f"parameter {name}"):
            Dump(tmp_path / "r", "low_rank_mfac", **{**SIZES["low_rank_mfac"], name: value})
    with pytest.raises(ValueError, match="parameter k is -1"):
        Dump(tmp_path / "r", "topk_sgd", d=3, k=-1)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("g", "state", "error", "words"),
    [
        (np.zeros(3), {}, ValueError, r"g has shape \(3,\), must have shape \(4,\)"),
        (np.zeros((4, 1)), {}, ValueError, r"g has shape \(4, 1\)"),
        (np.zeros(4, int), {}, TypeError, "g has dtype int64, must hold floating-point numbers"),
        (np.zeros(4), {"t": 1, "x": np.zeros(4)}, ValueError, "state has x, its names must be of t, xi"),
    ],
)
def test_a_step_that_no_replay_takes_is_not_written(g, state, error, words, tmp_path):
    with Dump(tmp_path / "r", "topk_sgd", d=4, k=1) as dump:
        size = (tmp_path / "r").stat().st_size
        with pytest.raises(error, match=words):
            dump.step(g, np.zeros(4), state)
        assert ((tmp_path / "r").stat().st_size, dump.steps) == (size, 0)


def test_a_step_that_the_disk_did_not_take_is_not_what_the_next_is_written_against(tmp_path, monkeypatch):
    def full(self, frame):
        raise OSError("no room")

    with Dump(tmp_path / "r", "topk_sgd", d=9, k=1) as dump:
        states = [np.zeros(9), np.eye(9)[0], np.eye(9)[0]]
        dump.step(np.ones(9), np.ones(9), {"xi": states[0]})
        with monkeypatch.context() as disk:
            disk.setattr(Dump, "_write", full)
            with pytest.raises(OSError, match="no room"):
                dump.step(np.ones(9), np.ones(9), {"xi": states[1]})
        dump.step(np.ones(9), np.ones(9), {"xi": states[2]})
    assert [step.state["xi"].tolist() for step in Reader(tmp_path / "r").steps()] == [[0.0] * 9, [1.0] + [0.0] * 8]


MASKED = np.ma.array([1.0, 2.0], mask=[False, True])


@pytest.mark.parametrize(
    "what", [(MASKED, np.ones(2), {}), (np.ones(2), MASKED, {}), (np.ones(2), np.ones(2), {"xi": MASKED})]
)
def test_values_behind_a_mask_are_not_written(what, tmp_path):
    with Dump(tmp_path / "r", "topk_sgd", d=2, k=1) as dump:
        size = (tmp_path / "r").stat().st_size
        with pytest.raises(ValueError, match="is a masked array with hidden entries, every entry must be given"):
            dump.step(*what)
        assert ((tmp_path / "r").stat().st_size, dump.steps) == (size, 0)
        dump.step(np.ma.array([1.0, 2.0]), [0.0, 2.0], {"xi": [1.0, 0.0]})  # a mask that hides nothing
    assert [step.g.tolist() for step in Reader(tmp_path / "r").steps()] == [[1.0, 2.0]]


def test_a_file_that_exists_is_replaced_only_when_asked(run):
    before = run.read_bytes()
    with pytest.raises(FileExistsError, match=rf"{run} exists, and is not overwritten: .* Dump\(..., fresh=True\)"):
        Dump(run, "topk_sgd", d=2, k=1)
    assert run.read_bytes() == before
    Dump(run, "topk_sgd", d=2, k=1, fresh=True).close()
    assert Reader(run).optimizer == "topk_sgd"


@pytest.mark.parametrize("what", [(None, [1.0], {}), ([1.0], "abc", {}), ([1.0], [1.0], [1.0]), ([1j], [1.0], {})])
def test_what_is_no_array_of_numbers_leaves_the_dump_as_it_was(what, tmp_path):
    with Dump(tmp_path / "r", "topk_sgd", d=1, k=1) as dump:
        size = (tmp_path / "r").stat().st_size
        with pytest.raises(TypeError):
            dump.step(*what)
        assert (tmp_path / "r").stat().st_size == size
    with pytest.raises(ValueError, match="closed"):
        dump.step([1.0], [1.0])


KILLED = """
import sys, time, numpy as np, efcp_ref
from efcp_ref.oracle.dump import Dump
it = efcp_ref.topk_sgd(d=50, k=5)
dump = Dump(sys.argv[1], "topk_sgd", d=50, k=5)
for g in np.random.default_rng(0).standard_normal((10**6, 50)):
    g = g.astype(np.float32)
    dump.step(g, it.step(g.astype(float)), it.state())
"""


def test_a_run_that_is_killed_leaves_every_whole_step(tmp_path):
    path = tmp_path / "r"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)])
    while process.poll() is None and not (path.exists() and path.stat().st_size > 50_000):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = replay.replay(path, stop=20)
    assert (found.verdict, found.judged) == ("pass", 20)
    reader = Reader(path)
    assert len(list(reader.steps())) >= 40
    assert "not closed" in reader.ending


# --- bad dumps


def test_a_dump_cut_anywhere_gives_its_whole_steps(run, tmp_path):
    data, whole, cut = run.read_bytes(), [], tmp_path / "cut"
    sizes = [*range(0, len(data), 97), len(data) - 1]
    for size in sizes:
        cut.write_bytes(data[:size])
        try:
            reader = Reader(cut)
        except Hostile:
            whole.append(-1)
            continue
        whole.append(len(list(reader.steps())))
        assert "not closed" in reader.ending
    assert whole == sorted(whole)
    assert whole[0] == -1
    assert {0, 1, 9, 10} <= set(whole)


def test_a_changed_byte_is_noticed_wherever_it_is(run, tmp_path):
    data, path = bytearray(run.read_bytes()), tmp_path / "bad"
    for at in range(0, len(data), 61):
        bad = data.copy()
        bad[at] ^= 0x10
        path.write_bytes(bad)
        try:
            found = replay.replay(path)
        except Hostile:
            continue  # the head
        assert found.damage or any("cut off" in note for note in found.notes), at
        assert found.exit_code in (0, 3)
        assert found.failed == 0


def forged(path, change):
    """Write a dump again with one frame changed and its checksum mended."""
    import zlib

    data, out, number = path.read_bytes(), b"", 0
    while data:
        kind, head, payload, _ = PREFIX.unpack(data[: PREFIX.size])
        start, end = PREFIX.size + head, PREFIX.size + head + payload
        body, arrays = change(number, json.loads(data[PREFIX.size : start]), data[start:end])
        text = json.dumps(body).encode()
        out += PREFIX.pack(kind, len(text), len(arrays), zlib.crc32(arrays, zlib.crc32(text))) + text + arrays
        data, number = data[end:], number + 1
    path.write_bytes(out)
    return path


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("format", "x", "no dump"), ("version", 2, "version 2"), ("optimizer", "adam", "unknown optimizer"),
        ("parameters", {"d": 12}, "needs block_size"), ("declares", {"SOLVER": 1}, "SOLVER = 1"),
        ("parameters", {**SIZE, "m": 0}, "m is 0"), ("parameters", {**SIZE, "m": 2.5}, "m is 2.5"),
        ("parameters", {**SIZE, "d": 10**30}, "d is 10000"), ("parameters", {**SIZE, "lam": -1.0}, "lam is -1"),
        ("parameters", {**SIZE, "density": 1.5}, r"density is 1.5, must be a number in \(0, 1\]"),
        ("parameters", {**SIZE, "lam": True}, "parameter 'True'"),
    ],
)  # fmt: skip
def test_a_head_that_breaks_a_rule_is_refused(run, name, value, words):
    path = forged(run, lambda n, body, data: ({**body, name: value} if n == 0 else body, data))
    with pytest.raises(Hostile, match=words):
        replay.replay(path)
    told = CliRunner().invoke(main, ["replay", str(path)])
    assert told.exit_code == 2
    assert "Error" in told.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: {**b, "g": {"dtype": "object", "shape": [12]}}, "step 4: dtype 'object'"),
        (lambda b: {**b, "g": {"dtype": "float32", "shape": [10**9, 10**9]}}, "step 4: shape .* needs more than"),
        (lambda b: {**b, "g": {"dtype": "float32", "shape": [13]}}, "step 4: "),
        (lambda b: {"g": b["g"]}, "step 4: expected an object with 'u'"),
        (lambda b: {**b, "state": {}}, "step 4: .* bytes of arrays"),
        (lambda b: {**b, "state": {**b["state"], "S": {"at": b["state"]["t"], "to": b["state"]["t"]}}}, "step 4: "),
    ],
)
def test_a_step_that_breaks_a_rule_ends_the_replay_with_what_was_judged(run, change, words):
    path = forged(run, lambda n, body, data: (change(body) if n == 4 else body, data))
    found = replay.replay(path)
    assert (found.verdict, found.exit_code, found.passed) == ("error", 3, 3)
    import re

    assert re.search(words, found.damage)


def test_changes_outside_an_array_are_refused(tmp_path):
    xi = np.zeros(16)
    with Dump(tmp_path / "r", "topk_sgd", d=16, k=1) as dump:
        for t in (1, 2):
            xi[t] = 1.0
            dump.step(np.zeros(16), np.zeros(16), {"t": t, "xi": xi})
    at = np.uint32([2]).tobytes()
    path = forged(tmp_path / "r", lambda n, b, a: (b, a.replace(at, np.uint32([99]).tobytes()) if n == 2 else a))
    with pytest.raises(Hostile, match="entry 99 of 'xi' changes, which has 16"):
        list(Reader(path).steps())


def test_no_file_an_empty_one_and_others_are_refused(tmp_path):
    with pytest.raises(Missing):
        Reader(tmp_path / "none")
    for data in (b"", b"PK\3\4", b"\x80\x04" + b"c" * 100, b"EFCP" * 50):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(Hostile):
            Reader(tmp_path / "x")


def test_the_end_must_count_the_steps(run):
    path = forged(run, lambda n, body, data: ({"steps": 9} if "steps" in body else body, data))
    assert "ends after 10 steps and says 9" in replay.replay(path).damage


# --- the verdict


@pytest.mark.parametrize("optimizer", SIZES)
def test_a_correct_run_passes(optimizer, tmp_path):
    found = replay.replay(write(tmp_path / "r", optimizer))
    assert (found.verdict, found.judged, found.failed, found.notes) == ("pass", 10, 0, [])
    assert found.exit_code == 0
    assert found.first is None


def test_numbers_of_a_float64_run_are_not_rounded(tmp_path):
    """0.1 is not a float32: rounding it would be a relative error of 1e-8 in u, far beyond a float64 bound."""
    path = write(tmp_path / "r", "dense_mfac")
    rounded = forged(
        write(tmp_path / "s", "dense_mfac"),
        lambda n, b, a: ({**b, "parameters": {"d": 12, "m": 3, "lam": float(np.float32(0.1))}} if n == 0 else b, a),
    )
    assert (replay.replay(path).verdict, replay.replay(rounded).verdict) == ("pass", "fail")


@pytest.mark.parametrize("mistake", [m for m in MUTANTS if m.operation == "sparse_mfac"], ids=lambda m: m.name)
def test_a_wrong_step_is_found_where_it_is(mistake, tmp_path):
    """Float64, so that nothing hides; t = 6 is where a ring one short wraps too early."""
    t = 5 if mistake.name == "sparse_ring_one_short" else 6
    found = replay.replay(write(tmp_path / "r", wrong=(t, mistake.function), it=SparseMFAC(**SIZE)))
    assert (found.verdict, found.first.t) == ("fail", t)
    assert found.passed >= t - 1
    assert any(words.startswith(mistake.text) for words in found.explained)
    assert f"step {t} is the first that fails" in replay.text(found)


def test_the_first_wrong_line_is_shown(tmp_path):
    wrong = next(m for m in MUTANTS if m.name == "sparse_no_feedback")
    path = write(tmp_path / "r", wrong=(6, wrong.function), it=SparseMFAC(**SIZE))
    told = CliRunner().invoke(main, ["replay", str(path)])
    assert told.exit_code == 1
    assert "step 6 is the first that fails: a (T2), Algorithm 1, line 5" in told.output
    assert "agrees with: no error feedback (Algorithm 1, line 5) [1:5]" in told.output
    told = CliRunner().invoke(main, ["replay", str(path), "--json"])
    body = json.loads(told.output)
    assert (body["first"]["step"], body["first"]["check"]["line"], body["failing"]) == (6, "1:5", [6])


def test_a_dump_that_starts_late_uses_its_first_step_as_a_start(tmp_path):
    found = replay.replay(write(tmp_path / "r", start=4))
    assert (found.verdict, found.judged) == ("pass", 5)
    assert found.notes == ["the dump starts after t = 4: its first step is only a start"]


def test_a_range_of_steps_is_judged_alone(tmp_path):
    wrong = next(m for m in MUTANTS if m.name == "sparse_no_feedback").function
    path = write(tmp_path / "r", wrong=(6, wrong), it=SparseMFAC(**SIZE))
    assert replay.replay(path, start=7).verdict == "pass"
    assert replay.replay(path, start=7).judged == 4
    assert replay.replay(path, stop=5).judged == 5
    assert replay.replay(path, start=6, stop=6).failing == [6]


def test_without_states_the_run_is_followed(tmp_path):
    found = replay.replay(write(tmp_path / "r", "dense_mfac", states=False))
    assert found.verdict == "pass"
    assert "no states were dumped" in found.notes[0]


def spoiled(path, spoil, steps=6):
    """A run whose step 3 is changed before it is dumped."""
    it = efcp_ref.sparse_mfac(**SIZE)
    with Dump(path, "sparse_mfac", **SIZE) as dump:
        for t, g in enumerate(gradients(steps), 1):
            u = it.step(g.astype(float))
            one = {"g": g.copy(), "u": u, "state": {n: np.array(v) for n, v in it.state().items()}}
            dump.step(**(spoil(one) if t == 3 else one))
    return path


def test_nan_and_wrong_shapes_are_a_verdict_each(tmp_path):
    def nan_u(one):
        return {**one, "u": np.full(12, np.nan)}

    def nan_state(one):
        return {**one, "state": {**one["state"], "xi": np.full(12, np.nan)}}

    def shape_state(one):
        return {**one, "state": {**one["state"], "S": np.zeros((2, 2))}}

    def shape_u(one):
        return {**one, "u": np.zeros(5)}

    for spoil, words in ((nan_u, "u[0] is nan"), (nan_state, "xi holds NaN"), (shape_state, "S has shape (2, 2)"),
                         (shape_u, "u has shape (5,)")):  # fmt: skip
        found = replay.replay(spoiled(tmp_path / spoil.__name__, spoil))
        assert (found.verdict, found.failing[0]) == ("fail", 3)
        assert words in found.first.blamed.reason
        assert found.judged >= 5, "the steps after it are judged, the next one where its start is known"
    bad_g = replay.replay(spoiled(tmp_path / "g", lambda one: {**one, "g": np.full(12, np.inf, np.float32)}))
    assert bad_g.failed == 0
    assert bad_g.undecided == {replay.NO_GRADIENT: 1}
    head = {"parameters": {**SIZE, "d": 11}}
    short = replay.replay(forged(write(tmp_path / "d"), lambda n, b, data: ({**b, **head} if n == 0 else b, data)))
    assert short.verdict == "error"
    assert "step 1: g has shape (12,)" in short.damage
    lost = replay.replay(spoiled(tmp_path / "k", lambda one: {**one, "state": {"t": 3}}))
    assert lost.verdict == "error"
    assert "step 3: the state lacks keys" in lost.damage


def test_an_interruption_keeps_what_was_judged(run, monkeypatch):
    real, calls = replay.judge_step, []

    def stops(*given):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(replay, "judge_step", stops)
    found = replay.replay(run)
    assert (found.passed, found.interrupted, found.exit_code) == (4, True, 130)


def test_an_error_of_the_oracle_is_no_verdict_on_the_target(run, monkeypatch):
    def broken(*given):
        raise ZeroDivisionError("x")

    monkeypatch.setattr(replay.steps, "one_step", broken)
    found = replay.replay(run)
    assert (found.verdict, found.exit_code) == ("error", 3)
    assert "the oracle's own criterion raised ZeroDivisionError" in replay.text(found)


@pytest.mark.parametrize("optimizer", SIZES)
def test_a_replay_may_be_certified(optimizer, tmp_path):
    pytest.importorskip("flint")
    found = replay.replay(write(tmp_path / "r", optimizer, steps=5), certified=True)
    assert found.verdict == "pass"
    assert found.certificate.certified > 0
    assert (found.certificate.overturned, found.certificate.missing) == (0, {})
    assert f"verdicts {found.certificate.text}" in replay.text(found)
    assert replay.as_json(found)["certificate"]["largest"] <= 0.1
    told = CliRunner().invoke(main, ["replay", str(tmp_path / "r"), "--certify"])
    assert told.exit_code == 0
    assert "verdicts certified" in told.output
    assert replay.replay(tmp_path / "r").certificate is None


# --- the free run


def test_the_free_run_is_drawn_and_never_judged(tmp_path):
    pytest.importorskip("matplotlib")
    wrong = next(m for m in MUTANTS if m.name == "sparse_no_feedback").function
    for name, path in (("right", write(tmp_path / "r")), ("wrong", write(tmp_path / "w", it=wrong(**SIZE)))):
        free = replay.free_run(path)
        assert free.t == tuple(range(1, 11))
        assert (max(free.u) < 1e-12) == (name == "right")
    picture = tmp_path / "p.svg"
    told = CliRunner().invoke(main, ["replay", str(tmp_path / "r"), "--plot", str(picture)])
    assert told.exit_code == 0
    assert "stays within one per cent" in told.output
    root = ET.parse(picture).getroot()
    assert root.get("role") == "img"
    assert "stays within one per cent" in root.get("aria-label")
    CliRunner().invoke(main, ["replay", str(tmp_path / "r"), "--plot", str(tmp_path / "p.png")])
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def replayed(*arguments):
    return CliRunner().invoke(main, ["replay", *map(str, arguments)])


def test_a_figure_takes_no_file_away(run, tmp_path):
    dump = run.read_bytes()
    picture, link = tmp_path / "same.svg", tmp_path / "link.svg"
    picture.write_bytes(dump)
    link.symlink_to(tmp_path / "nowhere")
    for file in (picture, link):
        told = replayed(picture, "--plot", file)
        assert told.exit_code == 2
        assert "is not overwritten" in told.output
    assert picture.read_bytes() == dump
    for name in ("run.efcp", "x.pdf", "x"):
        told = replayed(run, "--plot", tmp_path / name)
        assert told.exit_code == 2
        assert "must end in .svg or .png" in told.output
    assert run.read_bytes() == dump
    assert "there is no folder" in replayed(run, "--plot", tmp_path / "none" / "x.svg").output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.svg", "run.efcp", "same.svg"]


def test_the_function_takes_no_file_away(run, tmp_path):
    found, free, file = replay.replay(run), replay.free_run(run), tmp_path / "mine.svg"
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="is not overwritten"):
        replay.plot(found, free, file)
    assert file.read_text() == "mine"


def test_a_dump_damaged_midway_is_drawn_up_to_there(tmp_path):
    pytest.importorskip("matplotlib")
    path = write(tmp_path / "r")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) * 2 // 3] ^= 255
    path.write_bytes(damaged)
    judged = replay.replay(path)
    assert judged.damage
    assert 0 < len(replay.free_run(path).t) == judged.passed < 10
    told = replayed(path, "--plot", tmp_path / "p.svg")
    assert told.exit_code == judged.exit_code == 3
    assert "stays within one per cent" in told.output
    assert (tmp_path / "p.svg").exists()


def test_without_matplotlib_it_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = replayed(run, "--plot", tmp_path / "x.svg")
    assert told.exit_code == 3
    assert "pip install matplotlib" in told.output


def test_another_file_is_said_to_be_no_dump(tmp_path):
    (tmp_path / "mine.py").write_text("import numpy as np\n" * 9)
    told = replayed(tmp_path / "mine.py")
    assert told.exit_code == 2
    assert "mine.py is not a dump of efcp_ref" in told.output
    assert "there is no file" in replayed(tmp_path / "none").output


def test_steps_that_are_not_there_are_the_reason(run, tmp_path):
    told = replayed(run, "--start", 100)
    assert told.exit_code == 3
    assert "no step was judged: the dump ends with step 10, before step 100" in told.output
    told = replayed(write(tmp_path / "hidden", states=False), "--start", 5)
    assert "--start and --stop do nothing" in told.output


def test_writing_a_dump_does_not_import_the_oracle(tmp_path):
    code = "import sys, efcp_ref.oracle.dump; print([m for m in ('scipy', 'hypothesis', 'rich', 'torch', 'matplotlib') if m in sys.modules])"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# --- the measured figures

ROOT = Path(__file__).parents[2]


def test_a_real_run_passes_and_injected_mistakes_are_found(tmp_path):
    """The reduced form of ``python benchmarks/replay.py --steps 1000 --trials 100``."""
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    import importlib.util

    spec = importlib.util.spec_from_file_location("replay_benchmark", ROOT / "benchmarks" / "replay.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found = module.measure(70, 9, tmp_path, tmp_path / "p.svg")
    assert (found["run"]["verdict"], found["run"]["failed"], found["run"]["steps"]) == ("pass", 0, 70)
    assert found["injected"]["visible"] == found["injected"]["located at their step"] == 9
    assert found["injected"]["alarms for those"] == 0


# --- states that lead outside


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("row", 7, "row holds 7..7, must be in 0..2"), ("row", 0.5, "must hold integers"), ("row", np.nan, "holds NaN"),
        ("indices", 57, "indices holds"), ("indices", -99, "indices holds"), ("t", np.inf, "t holds NaN or infinity"),
    ],
)  # fmt: skip
def test_places_outside_the_window_are_a_failure_of_the_target(name, value, words, tmp_path):
    def spoil(one):
        bad = np.array(one["state"][name])
        bad = bad.astype(float) if isinstance(value, float) else bad
        bad.reshape(-1)[-1] = value
        return {**one, "state": {**one["state"], name: bad}}

    found = replay.replay(spoiled(tmp_path / "r", spoil))
    assert (found.verdict, found.failing[0], found.errors) == ("fail", 3, 0)
    assert words in found.first.blamed.reason


def test_a_check_with_numbers_of_numpy_becomes_json():
    """``np.float64(1) in (None, "", [])`` is an error of NumPy: what is written holds plain numbers."""
    from efcp_ref.oracle.core import Check
    from efcp_ref.oracle.record import check_json

    check = Check("P", "T2", "5:3", "", np.float64(2.0), "fail", bound=np.float64(0.5), got=np.float64(np.inf))
    assert json.loads(json.dumps(check_json(check)))["bound"] == 0.5
    assert check_json(check)["got"] == "inf"
