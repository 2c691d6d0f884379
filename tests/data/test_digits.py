"""The digits are the published ones, and their split never moves."""

import hashlib

import numpy as np
import pytest

from efcp_ref.data import digits, make_digits, split
from efcp_ref.data.digits import FILE, SIZES


def test_shape_range_and_types():
    X, y = digits()
    assert X.shape == (1797, 64)
    assert X.dtype == np.float64
    assert (X.min(), X.max()) == (0.0, 1.0)
    assert np.array_equal(X * 16, np.round(X * 16))  # whole sixteenths
    assert np.issubdtype(y.dtype, np.integer)
    assert sorted(set(y.tolist())) == list(range(10))


def test_equal_to_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    pixels, labels = datasets.load_digits(return_X_y=True)
    X, y = digits()
    assert np.array_equal(X, pixels / 16)
    assert np.array_equal(y, labels)


def test_file_is_small_and_needs_no_pickle():
    assert FILE.stat().st_size < 65_000
    with np.load(FILE, allow_pickle=False) as file:
        assert {name: (file[name].dtype.str, file[name].shape) for name in file} == {
            "pixels": ("|u1", (1797, 64)),
            "labels": ("|u1", (1797,)),
        }


def test_the_script_writes_the_same_arrays(tmp_path):
    X, y = digits()
    text = tmp_path / "optdigits.tes"
    np.savetxt(text, np.column_stack([X * 16, y]), fmt="%d", delimiter=",")
    make_digits.main(str(text), tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as again, np.load(FILE) as committed:
        assert all(np.array_equal(again[name], committed[name]) for name in committed)


def test_split_is_a_partition_that_never_moves():
    parts = split()
    assert tuple(map(len, parts)) == SIZES == (1078, 269, 450)
    assert sorted(np.concatenate(parts).tolist()) == list(range(1797))
    # by its definition, not by a recorded output: every hash of one part precedes every hash of the next
    hashes = [[hashlib.sha256(f"efcp digits {i}".encode()).hexdigest() for i in part] for part in parts]
    assert hashes[0][-1] < hashes[1][0]
    assert hashes[1][-1] < hashes[2][0]
    assert all(part == sorted(part) for part in hashes)


def test_every_class_is_in_every_part():
    _, y = digits()
    assert all(np.bincount(y[part], minlength=10).min() >= len(part) / 20 for part in split())


def test_shared_arrays_are_read_only():
    for array in (*digits(), *split()):
        assert not array.flags.writeable
