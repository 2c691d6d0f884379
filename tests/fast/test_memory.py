"""Bytes are counted before they are taken, and the count is what is taken."""

import tracemalloc

import numpy as np
import pytest

from efcp_ref import fast
from efcp_ref.fast import memory

Q0 = [np.ones((300, 2))]
MADE = {
    "sparse_mfac": {"d": 300_000, "m": 8, "lam": 1.0, "block_size": 41_728, "density": 0.01, "dtype": "float32"},
    "dense_mfac": {"d": 100_000, "m": 8, "lam": 1.0, "dtype": "float32"},
    "sparse_ggt": {"d": 300_000, "m": 8, "eps": 1.0, "cutoff": 1e-12, "k": 3000, "dtype": "float32"},
    "dense_ggt": {"d": 100_000, "m": 8, "eps": 1.0, "cutoff": 1e-12, "dtype": "float32"},
    "low_rank_mfac": {"shapes": [(400, 300), (1000,)], "m": 8, "lam": 1.0, "rank": 2, "Q0": Q0, "dtype": "float32"},
    "topk_sgd": {"d": 300_000, "k": 3000, "dtype": "float32"},
    "adagrad_ef": {"d": 300_000, "k": 3000, "dtype": "float32"},
    "ef_signsgd": {"d": 300_000, "gamma": 0.1, "dtype": "float32"},
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_more_than_there_is_is_refused_before_it_is_taken(name, monkeypatch):
    optimizer = getattr(fast, name)(**MADE[name])
    monkeypatch.setattr(memory, "available", lambda: optimizer.nbytes - 1)
    tracemalloc.start()
    needed = optimizer.nbytes
    with pytest.raises(MemoryError, match=f"{name}.* needs {needed} bytes .* {needed - 1} are available"):
        getattr(fast, name)(**MADE[name])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < optimizer.nbytes / 4
    monkeypatch.setattr(memory, "available", lambda: optimizer.nbytes)
    getattr(fast, name)(**MADE[name])


@pytest.mark.parametrize("name", MADE)
def test_a_step_takes_what_was_counted(name):
    """The peak of construction and two steps is at most nbytes and what a slice needs, and not less than half of it."""
    d = MADE[name].get("d", 121_000)
    g = np.random.default_rng(0).standard_normal(d).astype(np.float32)
    getattr(fast, name)(**MADE[name]).step(g)  # imports
    tracemalloc.start()
    optimizer = getattr(fast, name)(**MADE[name])
    for _ in range(2):
        optimizer.step(g)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert optimizer.nbytes / 2 <= peak <= optimizer.nbytes + 3.5 * 2**20
    assert optimizer.nbytes == sum(optimizer.memory.values())


def test_the_paper_sizes_are_known_without_allocating(monkeypatch):
    """BERT-Base, m = 1024, 1 %: 4 bytes per entry fit 12 GB; dense needs 417 GiB (section 4, R32)."""
    monkeypatch.setattr(memory, "available", lambda: 0)
    with pytest.raises(MemoryError) as sparse:
        fast.sparse_mfac(109_482_240, 1024, 1e-4, 41_728, 0.01, dtype="bfloat16")
    with pytest.raises(MemoryError) as dense:
        fast.dense_mfac(109_482_240, 1024, 1e-4, dtype="float32")
    needs = [int(str(error.value).split(" needs ")[1].split()[0]) for error in (sparse, dense)]
    assert needs[0] < 12e9
    assert needs[1] > 417 * 2**30


def test_what_the_system_says():
    there = memory.available()
    assert there is None or 0 < there < 2**50


def test_the_smallest_limit_counts(monkeypatch, tmp_path):
    (tmp_path / "limit").write_text("1000\n")
    (tmp_path / "use").write_text("400\n")
    here = (str(tmp_path / "limit"), str(tmp_path / "use"))
    monkeypatch.setattr(memory, "CONTROL_GROUPS", (here, ("/nowhere", "/nowhere")))
    assert memory.available() == 600
    (tmp_path / "limit").write_text("max\n")
    assert memory.available() != 600
    monkeypatch.setattr(memory, "_system", lambda: None)
    assert memory.available() is None
    memory.reserve("anything", {"x": 10**30})  # nobody says how much there is: nothing is refused
