"""Every broken kernel is noticed by the check that it is listed under; whole kernels are silent under all of them."""

import re
import shutil

import pytest

from tests.gpu.mutants import MUTANTS, judge

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="no g++: no kernel can run on the CPU")
FILES = ("sp.cu", "sp_warps.cu", "sp_slices.cu", "lcg.cu", "lcg_rows.cu", "lcg_warp.cu", "lcg_global.cu", "feedback.cu")


def test_there_are_enough_of_them():
    files = {mutant.file for mutant in MUTANTS.values()}
    assert len(MUTANTS) >= 12
    assert {"sp.cu", "lcg.cu", "sp_slices.cu", "lcg_rows.cu", "lcg_warp.cu", "feedback.cu", "cholesky.cu"} <= files
    assert {f"R{n}" for n in range(15, 21)} <= set(re.findall(r"R\d+", " ".join(m.what for m in MUTANTS.values())))


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_noticed(name):
    mutant = MUTANTS[name]
    seen = judge(name, mutant.caught[0])
    assert seen
    if mutant.caught[0] == "thread":
        assert "data race" in seen
        assert f"{mutant.file}:" in seen  # the kernel's own line


@pytest.mark.parametrize("check", ["thread", "address"])
@pytest.mark.parametrize("file", [*FILES, "cholesky.cu"])
def test_the_whole_kernel_is_silent(file, check):
    assert judge(file, check) == ""


def test_a_barrier_in_a_branch_is_reported_with_its_line_and_hangs_nothing():
    seen = judge("sp-14-in-branch", "order")
    assert re.search(r"block 0: .* sp\.cu:\d+", seen)
