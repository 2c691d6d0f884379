"""States go to disk and back bit by bit; a damaged file, a full disk or an interrupt leaves something whole."""

import zipfile

import numpy as np
import pytest

from efcp_ref import fast
from efcp_ref.fast import disk
from tests.fast.test_optimizers import SMALL, equal, gradients

LESS = [("sparse_mfac", "float32"), ("sparse_mfac", "bfloat16"), ("sparse_ggt", "bfloat16")]
STORED = [*((name, "float64") for name in SMALL), *LESS]


@pytest.fixture(params=STORED, ids="-".join)
def pair(request):
    """An optimizer after some steps, and a new one like it."""
    name, dtype = request.param
    made = [getattr(fast, name)(**SMALL[name], dtype=dtype) for _ in range(2)]
    for g in gradients(5):
        made[0].step(g)
    return made


def test_there_and_back_bit_by_bit_and_so_is_what_follows(pair, tmp_path):
    first, second = pair
    first.save(tmp_path / "state")
    second.load(tmp_path / "state")
    assert equal(second.state(), first.state())
    for g in gradients(9, seed=1):
        np.testing.assert_array_equal(first.step(g), second.step(g))
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_numpy_reads_the_file(pair, tmp_path):
    pair[0].save(tmp_path / "state")
    with zipfile.ZipFile(tmp_path / "state") as archive:
        names = archive.namelist()
    assert names[0] == "header.json"
    with np.load(tmp_path / "state", allow_pickle=False) as arrays:
        assert all(arrays[name.removesuffix(".npy")].size >= 0 for name in names[1:])


@pytest.mark.parametrize("name", ["sparse_mfac", "topk_sgd"])
def test_a_damaged_file_is_refused_and_changes_nothing(name, tmp_path):
    optimizer = getattr(fast, name)(**SMALL[name])
    optimizer.step(gradients(1)[0])
    optimizer.save(tmp_path / "state")
    whole, before = (tmp_path / "state").read_bytes(), optimizer.state()
    for position in range(0, len(whole), max(1, len(whole) // 60)):
        for bad in (whole[:position], whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :]):
            (tmp_path / "bad").write_bytes(bad)
            try:
                optimizer.load(tmp_path / "bad")
            except ValueError:
                assert equal(optimizer.state(), before)
            else:
                assert equal(optimizer.state(), before)  # a byte that says nothing: padding, a date


def test_another_optimizer_or_size_is_refused(tmp_path):
    optimizer = fast.sparse_mfac(**SMALL["sparse_mfac"])
    optimizer.save(tmp_path / "state")
    with pytest.raises(ValueError, match=r"holds sparse_mfac\(d=29, m=3.*must hold sparse_mfac\(d=29, m=4"):
        fast.sparse_mfac(**{**SMALL["sparse_mfac"], "m": 4}).load(tmp_path / "state")
    with pytest.raises(ValueError, match="must hold topk_sgd"):
        fast.topk_sgd(**SMALL["topk_sgd"]).load(tmp_path / "state")
    with pytest.raises(FileNotFoundError):
        optimizer.load(tmp_path / "nothing")
    (tmp_path / "other").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="not a whole file"):
        optimizer.load(tmp_path / "other")


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    optimizer = fast.sparse_mfac(**SMALL["sparse_mfac"])
    optimizer.save(tmp_path / "state")
    old = (tmp_path / "state").read_bytes()
    optimizer.step(gradients(1)[0])
    write, calls = disk._write_array, []

    def full(member, array):
        calls.append(array)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        write(member, array)

    monkeypatch.setattr(disk, "_write_array", full)
    with pytest.raises(OSError, match="No space left"):
        optimizer.save(tmp_path / "state")
    assert (tmp_path / "state").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_an_interrupted_load_is_not_half_a_state(tmp_path, monkeypatch):
    """The window is filled in place: until every byte is in, the optimizer refuses to step; loading again heals it."""
    optimizer = fast.sparse_mfac(**SMALL["sparse_mfac"])
    for g in gradients(4):
        optimizer.step(g)
    optimizer.save(tmp_path / "state")
    saved, fill, calls = optimizer.state(), disk._fill, []

    def stop(member, array):
        calls.append(array)
        if len(calls) == 4:
            raise KeyboardInterrupt
        fill(member, array)

    optimizer.step(gradients(5)[4])
    monkeypatch.setattr(disk, "_fill", stop)
    with pytest.raises(KeyboardInterrupt):
        optimizer.load(tmp_path / "state")
    with pytest.raises(RuntimeError, match="load again"):
        optimizer.step(gradients(1)[0])
    with pytest.raises(RuntimeError, match="load again"):
        optimizer.state()
    monkeypatch.setattr(disk, "_fill", fill)
    optimizer.load(tmp_path / "state")
    assert equal(optimizer.state(), saved)
