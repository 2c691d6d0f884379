"""Standard descriptors that are closed, and processes that end with the one that started them."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent.parent / "targets_for_tests" / "process_good.py"

EVERY = [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)]


def without(closed, *command):
    """Run a command in a shell that closes descriptors first; exit code, and what was said where it can be."""
    signs = " ".join(f"{fd}{'<' if fd == 0 else '>'}&-" for fd in closed)
    line = ["sh", "-c", f'exec "$@" {signs}', "sh", *map(str, command)]
    said = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    return said.returncode, said.stdout, said.stderr


EFCP = (sys.executable, "-m", "efcp_ref")
LIBRARY = """
import os
from efcp_ref.oracle import check_target
report = check_target("efcp_ref", ["sp"], cases=1)
os._exit(0 if report.exit_code == 0 and report["sp"].passed == 2 else 1)
"""
COMMAND = f"""
import os
from efcp_ref.oracle.process import check_command
report = check_command({f"{sys.executable} {PROGRAM}"!r}, ["sp"], cases=1)
os._exit(0 if report.exit_code == 0 and report["sp"].passed == 2 else 1)
"""


@pytest.mark.parametrize("closed", EVERY)
def test_a_right_target_passes_without_standard_descriptors(closed):
    code, out, err = without(closed, *EFCP, "check", "efcp_ref", "-o", "sp", "--cases", "1")
    assert (code, err) == (0, "")
    assert (1 in closed) or "1 pass" in out


@pytest.mark.parametrize("closed", EVERY)
def test_a_wrong_target_fails_without_standard_descriptors(closed, tmp_path):
    (tmp_path / "wrong.py").write_text("import efcp_ref\ndef sp(*a): return 2 * efcp_ref.sp(*a)\n")
    code, _, err = without(closed, *EFCP, "check", tmp_path / "wrong.py", "-o", "sp", "--cases", "3")
    assert (code, err) == (1, "")


@pytest.mark.parametrize("closed", EVERY)
@pytest.mark.parametrize("program", [LIBRARY, COMMAND], ids=["python", "command"])
def test_a_library_without_standard_descriptors_judges_as_with_them(closed, program):
    assert without(closed, sys.executable, "-c", program) == (0, "", "")


def test_nothing_to_read_is_told_in_one_line():
    code, out, err = without((0,), *EFCP, "verify", "sp")
    assert (code, out) == (2, "")
    assert err == "Error: standard input is closed, there is nothing to read\n"
