"""Every broken kernel is noticed by the check that it is listed under; whole kernels are silent under all of them."""

import re
import shutil
from pathlib import Path

import pytest

from tests.gpu.mutants import MUTANTS, checks, digest, judge, recorded, table

pytestmark = [
    pytest.mark.skipif(not shutil.which("g++"), reason="no g++: no kernel can run on the CPU"),
    pytest.mark.timeout(600),  # a busy machine compiles with a sanitizer for long
]
GUIDE = Path(__file__).parents[2] / "docs" / "kernels.md"
FILES = ("sp.cu", "sp_warps.cu", "sp_slices.cu", "lcg.cu", "lcg_rows.cu", "lcg_warp.cu", "lcg_global.cu", "feedback.cu")


def test_there_are_enough_of_them():
    files = {mutant.file for mutant in MUTANTS.values()}
    assert len(MUTANTS) >= 12
    assert {"sp.cu", "lcg.cu", "sp_slices.cu", "lcg_rows.cu", "lcg_warp.cu", "feedback.cu", "cholesky.cu"} <= files
    assert {f"R{n}" for n in range(15, 21)} <= set(re.findall(r"R\d+", " ".join(m.what for m in MUTANTS.values())))


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_noticed(name):
    mutant = MUTANTS[name]
    seen = judge(name, mutant.caught)
    assert seen
    if mutant.caught == "thread":
        assert "data race" in seen
        assert f"{mutant.file}:" in seen  # the kernel's own line


@pytest.mark.parametrize("check", ["thread", "address"])
@pytest.mark.parametrize("file", [*FILES, "cholesky.cu"])
def test_the_whole_kernel_is_silent(file, check):
    assert judge(file, check) == ""


def test_a_barrier_in_a_branch_is_reported_with_its_line_and_hangs_nothing():
    seen = judge("sp-14-in-branch", "order")
    assert re.search(r"block 0: .* sp\.cu:\d+", seen)


# ---- mutants.json: all checks on all mutants -------------------------------------------------------------------------


def test_the_record_holds_every_mutant_as_it_is_now():
    """If this fails: ``python -m tests.gpu.mutants``."""
    known = recorded()
    assert list(known) == list(MUTANTS)
    for name, mutant in MUTANTS.items():
        assert known[name]["digest"] == digest(mutant), name
        assert mutant.caught in known[name]["seen"], name
        assert set(known[name]["seen"]) <= set(checks(mutant)), name


def test_the_guide_shows_the_record_and_counts_it():
    guide, rows = GUIDE.read_text(), recorded().values()
    assert "\n".join(table()) in guide
    alone = sum(len(row["seen"]) == 1 for row in rows)
    assert f"All {len(rows)} are noticed, {alone} of them by one check alone." in guide


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_record_is_what_the_checks_see(name):
    assert [check for check in checks(MUTANTS[name]) if judge(name, check)] == recorded()[name]["seen"]
