"""The protocol, the calling convention, and what counts as a result."""

import subprocess
import sys
from collections import namedtuple
from fractions import Fraction
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from efcp_ref.oracle import results, wire

KINDS = ["<f8", "<f4", ">f8", "<i4", "<u2", "|b1", "<c16", "<f2"]


@given(
    st.sampled_from(KINDS).flatmap(lambda k: arrays.arrays(np.dtype(k), arrays.array_shapes(min_dims=0, min_side=0)))
)
def test_arrays_travel_bit_for_bit(a):
    back = wire.decode(*wire.split(wire.encode({"a": a, "more": [a, (a, 1.5, None, "x")]})))
    assert back["a"].shape == a.shape
    assert back["a"].dtype == a.dtype.newbyteorder("<")
    assert back["a"].tobytes() == wire.plain(a).tobytes()
    assert back["more"][1][0].tobytes() == back["a"].tobytes()
    assert back["a"].flags.writeable


def test_bfloat16_and_fractions_travel():
    a = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    back = wire.decode(*wire.split(wire.encode([a, Fraction(1, 4), np.float32(0.5)])))
    assert back[0].dtype == a.dtype
    assert back[0].tolist() == a.tolist()
    assert back[1:] == [0.25, 0.5]


@pytest.mark.parametrize("garbage", [b"garbage!" * 4, b"EFCP" + b"\xff" * 12])
def test_garbage_is_no_message(garbage):
    with pytest.raises(wire.BrokenMessage):
        wire.lengths(garbage[: wire.PREFIX.size])


@pytest.mark.parametrize("header", [b"{", b'[1, [["<f8", [3]]]]', b'[1, [["<O8", [1]]]]', b"7"])
def test_a_broken_header_is_no_message(header):
    with pytest.raises(wire.BrokenMessage):
        wire.decode(header, bytearray(8))


ARGUMENTS = {"a": 1, "block_size": 2, "density": 0.5}


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda a: (a,), (1,)),
        (lambda a, block_size, density: (a, block_size, density), (1, 2, 0.5)),
        (lambda a, density: (a, density), (1, 0.5)),
        (lambda a, block_size=None: (a, block_size), (1, 2)),
        (lambda a, eps=7: (a, eps), (1, 7)),
        (lambda *a: a, (1, 2, 0.5)),
        (lambda a, **rest: (a, rest), (1, {"block_size": 2, "density": 0.5})),
        (lambda a, *, density: (a, density), (1, 0.5)),
        (lambda a, B, rho: (a, B, rho), (1, 2, 0.5)),
        (max, 2),  # a builtin without a signature is handed everything
    ],
)
def test_layout_is_handed_over_where_it_is_named(function, got):
    assert results.call(function, ARGUMENTS) == got


Named = namedtuple("Named", "values indices")
KEPT = {"indices": [0, 1], "values": [3.0, 2.0]}


@pytest.mark.parametrize(
    "value",
    [
        (KEPT["indices"], KEPT["values"]), [np.array([0, 1]), np.array([3.0, 2.0])], KEPT, SimpleNamespace(**KEPT),
        Named(KEPT["values"], KEPT["indices"]), KEPT | {"more": "ignored"},
    ],
)  # fmt: skip
def test_several_results_come_in_order_or_by_name(value):
    got = results.normalise(value, ("indices", "values"), (), "float32", {"indices": "index"})
    assert got["indices"].tolist() == [0, 1]
    assert got["indices"].dtype.kind == "i"
    assert got["values"].tolist() == [3.0, 2.0]


class OnlyDlpack:
    def __init__(self, a):
        self.a = a

    def __dlpack__(self, **keywords):
        return self.a.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


@pytest.mark.parametrize(
    "value", [np.ones(2), [1.0, 1.0], [1, 1], (np.ones(2),), {"u": np.ones(2)}, OnlyDlpack(np.ones(2))]
)
def test_one_result_is_the_array_itself(value):
    assert results.normalise(value, ("u",), ("S",), "float64", {})["u"].tolist() == [1.0, 1.0]


def test_numbers_without_a_precision_take_the_case_s():
    for value in (0.1, [0.1], 1):
        assert results.as_array("u", value, "float32").dtype == np.float32
    assert results.as_array("u", np.float64(0.1), "float32").dtype == np.float64
    assert results.as_array("product", np.array(0.5), "float32").shape == ()


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        (),
        (None, np.ones(2)),
        {"S": np.eye(2)},
        object(),
        (np.ones(1), [[1.0], [1.0, 2.0]]),
        ("a", "b"),
        print,
    ],
)
def test_anything_else_is_an_error_that_says_what_came(value):
    with pytest.raises(results.ResultShape, match=r"got|cannot be read|dtype"):
        results.normalise(value, ("u",), ("S", "h", "c"), "float64", {})


def test_torch_results_of_every_kind():
    torch = pytest.importorskip("torch")
    for t in (torch.ones(2, requires_grad=True), torch.ones(2).to_sparse(), torch.ones(4)[::2]):
        assert results.to_numpy(t).tolist() == [1.0, 1.0]
    assert results.to_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype == ml_dtypes.bfloat16
    given = results.hand_over(np.ones(2, ml_dtypes.bfloat16), "torch", None, ("readonly", "strided"))
    assert given.dtype == torch.bfloat16
    found = results.normalise(torch.topk(torch.tensor([3.0, 1.0]), 1), ("indices", "values"), (), "float32", {})
    assert found["indices"].tolist() == [0]


def test_writing_into_an_input_is_seen_whatever_is_written():
    original = np.array([0.0, 1.0])
    for change in (lambda a: a.__setitem__(0, -0.0), lambda a: a.sort(), lambda a: a.resize((1,), refcheck=False)):
        given = np.array([0.0, 1.0])
        change(given)
        assert results.changed(given, original) == (given.tobytes() != original.tobytes())
    assert results.changed([original + 1], [original])
    assert not results.changed(7, 7)


def test_the_worker_imports_neither_scipy_nor_hypothesis():
    heavy = ("scipy", "hypothesis", "click", "rich", "ml_dtypes")
    code = f"import efcp_ref.oracle.worker, sys; print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
