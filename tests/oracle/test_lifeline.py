"""Standard descriptors that are closed, and processes that end with the one that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from efcp_ref.oracle import Target, lifeline
from tests.oracle.test_process import gone

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


# --- processes end with the one that started them -----------------------------------------------------------------

STALLS = {
    "sleeps in a call": "def sp(*_):\n    told()\n    time.sleep(600)",
    "loops in a call": "def sp(*_):\n    told()\n    while True: pass",
    "sleeps while it is imported": "told()\ntime.sleep(600)",
    "ignores signals": "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    "def sp(*_):\n    told()\n    while True: pass",
    "has a child that sleeps": "def sp(*_):\n    if not os.fork():\n        told()\n    time.sleep(600)",
}
TOLD = """
import os, signal, time
def told():
    with open(__file__ + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(__file__ + ".new", __file__ + ".pid")
"""


def written(path, mine):
    """The process id that a target writes when it is where it stalls."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert mine.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a target ends at its next case")
@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_a_target_ends_with_the_one_that_judges_it(stall, number, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(TOLD + STALLS[stall])
    mine = subprocess.Popen([*EFCP, "check", path, "-o", "sp", "--timeout", "600", "--json"], stdout=subprocess.DEVNULL)
    stalled = written(tmp_path / "mine.py.pid", mine)
    mine.send_signal(number)
    assert mine.wait(10) == {signal.SIGINT: 130}.get(number, -number)
    assert gone(stalled)


def test_a_copy_of_this_process_ends_no_target():
    """What multiprocessing starts by fork is often ended by SIGTERM: the targets of its parent go on."""
    target = Target("efcp_ref")
    child = target._child.process
    if not (copy := os.fork()):
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(copy, 0)[1]) == signal.SIGTERM
    assert child.poll() is None
    target.close()
    assert child.poll() == -signal.SIGKILL


def test_nohup_stays_in_force():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        lifeline.mind()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_no_descriptor_is_left_open():
    def count():
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            lifeline.start(["/no/such/program"])
        lifeline.end(lifeline.start(["sleep", "60"]))
        Target("efcp_ref").close()
    assert count() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a target ends at its next case")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_a_target_ends_with_the_one_that_started_its_judges(number, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(TOLD + STALLS["sleeps in a call"])
    line = [*EFCP, "check", path, "-o", "sp", "--cases", "1", "--timeout", "60", "--jobs", "2"]
    mine = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    stalled = written(tmp_path / "mine.py.pid", mine)
    mine.send_signal(number)
    assert mine.wait(10) == -number
    assert gone(stalled)
