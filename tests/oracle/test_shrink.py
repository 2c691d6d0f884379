"""Failing cases become small, stay valid, and still fail at the same stage."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efcp_ref.contract import NAMES
from efcp_ref.oracle import shrink
from efcp_ref.oracle.cases import generate
from efcp_ref.oracle.judge import judge, judge_case
from efcp_ref.oracle.targets import Local
from efcp_ref.paper.top_k import row_length


@pytest.mark.parametrize("operation", NAMES)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_what_is_cut_is_still_a_case_of_the_contract(operation, data):
    case = generate(operation, 1, data.draw(st.integers(0, 60)))
    if shrink.size_of(case) > 5000:
        return
    smaller = shrink.cut(case, shrink._ranges(data.draw, st, case))
    if smaller is None:
        return
    arguments = smaller.arguments
    assert list(arguments) == list(case.arguments)
    assert shrink.size_of(smaller) <= shrink.size_of(case)
    if "indices" in arguments:
        d = shrink.lengths(smaller)["d"]
        assert arguments["indices"].shape == arguments["values"].shape
        assert arguments["indices"].shape[1] == row_length(d, arguments["block_size"], arguments["density"])
        blocks = arguments["indices"] // arguments["block_size"]
        assert (np.diff(blocks, axis=1) >= 0).all()
        assert all(len(set(row)) == len(row) for row in arguments["indices"].tolist())
        assert arguments["indices"].max(initial=0) < d


def forgets_the_last_row(indices, values, g):
    omega = (values * g[indices]).sum(1)
    if len(omega) > 1:
        omega[-1] = 0
    return omega


def test_a_failure_becomes_as_small_as_it_can():
    report = judge(Local({"sp": forgets_the_last_row}), cases=10, shrink_seconds=5)
    minimal = report["sp"].failures[0].minimal
    assert minimal.verdict == "fail"
    assert minimal.case.arguments["values"].shape == (2, 1)
    assert len(minimal.case.arguments["g"]) == 1
    assert judge_case(Local({"sp": forgets_the_last_row}), minimal.case)[0].first.stage == "omega"


def test_the_budget_holds_on_a_large_case():
    def wraps(indices, values, c, d):
        omega = np.zeros(d, values.dtype)
        for row, v, s in zip(indices, values, c, strict=True):
            np.add.at(omega, row.astype(np.int16), s * v)
        return omega

    target, start = Local({"lcg": wraps}), time.monotonic()
    failing = next(v for v in (judge_case(target, generate("lcg", 0, i))[0] for i in range(40)) if v.verdict == "fail")
    start = time.monotonic()
    minimal = shrink.minimise(target, failing, 2.0)
    assert time.monotonic() - start < 4
    assert minimal is None or shrink.measure(minimal.case) < shrink.measure(failing.case)


def test_what_cannot_shrink_is_left_alone():
    case = generate("sp", 0, 0)
    failing, _ = judge_case(Local({"sp": lambda *a: np.zeros(len(a[0])) + np.nan}), case)
    assert shrink.minimise(Local({"sp": lambda i, v, g: (v * g[i]).sum(1)}), failing, 1.0) is None
