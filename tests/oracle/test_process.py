"""Door 2: processes that speak JSON lines, well and badly, and the schema of what is said."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from efcp_ref.oracle import campaign, hostile, process
from efcp_ref.oracle.cases import generate
from efcp_ref.oracle.chunks import Door
from efcp_ref.oracle.core import Case
from efcp_ref.oracle.process import SCHEMA, Process, check_command, packed, run_message, start_message, unpacked
from efcp_ref.oracle.results import ResultShape
from efcp_ref.oracle.targets import BrokenTarget, UsageError
from efcp_ref.oracle.terminal import text

PROGRAM = Path(__file__).parent.parent / "targets_for_tests" / "process_good.py"


def command(flags=""):
    return f"{sys.executable} {PROGRAM} {flags}".strip()


def checked(flags="", **more):
    return check_command(command(flags), ["sp"], cases=6, timeout=0.5, shrink_seconds=0, **more)


@pytest.mark.parametrize("flags", ["", "npy"])
def test_a_right_process_passes_with_base64_and_with_files(flags):
    report = checked(flags)
    assert report.exit_code == 0
    assert report["sp"].passed + sum(report["sp"].inconclusive.values()) == 12
    assert report["sp"].passed >= 10
    assert any("tea" in note for note in report.notes)


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        ("hang", "timeout", "timeout after 0.5 s"),
        ("die", "died", "was killed by signal 6 (SIGABRT)"),
        ("babble", "died", "where a message was expected"),
    ],
)
def test_a_process_that_is_lost_is_restarted_for_the_next_case(flags, kind, words):
    report = checked(flags)
    sp = report["sp"]
    assert sp.verdict == "error"
    assert sp.errors == {kind: 1}
    assert sp.passed + sum(sp.inconclusive.values()) == 11
    assert words in sp.failures[0].verdict.reason
    assert "working on 10" in sp.failures[0].output, "what it wrote to stderr is kept"


def test_a_process_that_answers_another_question_is_given_up():
    sp = checked("deaf")["sp"]
    assert sp.errors == {"died": 3}
    assert "answered question 2 instead of 1" in sp.failures[0].verdict.reason


def test_an_error_keeps_its_kind_and_reason():
    sp = checked("raise")["sp"]
    assert sp.errors == {"raised": 12}
    assert "said ValueError: no idea" in sp.failures[0].verdict.reason


def test_what_a_terminal_obeys_is_written_out():
    failure = (report := checked("escape"))["sp"].failures[0]
    assert failure.verdict.reason == r"said red\x1b[31m: clear \x1b[2J next \x9b \u202e"
    assert all(c.isprintable() or c == "\n" for c in text(report))


def test_a_name_that_nobody_knows_is_written_out():
    found = process._names({"operations": ["sp", "te\x1b[31ma\n"]}, "operations")
    assert found == ["sp", r"te\x1b[31ma"]


def test_declined_is_no_error():
    report = check_command(command(), ["top_k"], cases=2)
    assert report["top_k"].inconclusive == {"declined": 4}
    assert report.exit_code == 3


def test_bytes_that_do_not_fit_the_shape_are_an_error():
    sp = checked("short")["sp"]
    assert sp.errors == {"result shape": 12}
    assert "bytes for shape" in sp.failures[0].verdict.reason


def test_a_file_outside_the_folder_is_not_read():
    sp = checked("npy climb")["sp"]
    assert sp.errors == {"result shape": 12}
    assert "only names of letters" in sp.failures[0].verdict.reason


def test_a_wrong_process_fails_and_the_command_reproduces_it():
    report = checked("wrong")
    assert report.exit_code == 1
    shown = text(report)
    assert f"reproduce  efcp-ref check --command '{command('wrong')}' --operation sp --seed 0 --case" in shown
    assert "working on" in shown


def test_a_failure_is_made_small_over_the_pipe():
    report = check_command(command("wrong"), ["sp"], cases=2, shrink_seconds=3)
    minimal = report["sp"].failures[0].minimal
    assert minimal is not None
    assert minimal.case.arguments["indices"].size == 1


def test_declarations_are_taken_and_checked():
    target = Process(command("declares"))
    assert target.declared.dtypes == ("float64",)
    assert target.declared.solver == "eigh"
    target.close()


def test_versions_are_negotiated():
    assert start_message("/tmp")["versions"] == list(process.VERSIONS)
    assert "expected ready with protocol 1" in checked("future").broken


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("true", "ended with exit code 0"),
        ("echo hello", "wrote 'hello'"),
        ("""echo '{"type": "ready", "protocol": 1, "operations": 3}'""", "expected a list of names"),
        ("echo '[]'", "expected an object"),
    ],
)
def test_a_process_that_does_not_speak_the_protocol_is_broken(line, words):
    report = check_command(line, cases=1)
    assert words in report.broken
    assert report.exit_code == 3


@pytest.mark.parametrize("line", ["", "'", "/no/such/program"])
def test_no_such_program_is_wrong_usage(line):
    with pytest.raises(UsageError):
        check_command(line)


def test_a_process_that_never_answers_is_broken_in_time():
    with pytest.raises(BrokenTarget, match="no answer to start within 0.2 s, the limit for starting"):
        Process("sleep 60", start_timeout=0.2)


@pytest.mark.parametrize(("timeout", "limit"), [(0.1, 0.3), (0.5, 0.5)])
def test_the_limit_for_starting_is_never_less_than_that_of_a_case(timeout, limit, monkeypatch):
    monkeypatch.setattr(process, "START", 0.3)
    for report in (check_command("sleep 60", timeout=timeout), campaign.run(Door("sleep 60", timeout, command=True))):
        assert f"no answer to start within {limit} s" in report.broken


SLEEPER = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
STARTER = """
import sys
from efcp_ref.oracle.chunks import Chunk, Door
from efcp_ref.oracle.pool import locally
from efcp_ref.oracle.process import check_command
command, where = sys.argv[1:]
if where == "here":
    check_command(command)
else:
    list(locally(Door(command, command=True), [Chunk("sp", 0, 0, 1)], 1))
"""


def gone(pid):
    """Whether a process has ended, within some seconds; one that nobody waits for counts as ended."""
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(100):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("where", ["here", "in a worker"])
@pytest.mark.parametrize("number", ["TERM", "HUP", "KILL"])
def test_the_process_ends_with_the_one_that_started_it(where, number, tmp_path):
    pid = tmp_path / "pid"
    line = shlex.join([sys.executable, "-c", SLEEPER, str(pid)])
    mine = subprocess.Popen([sys.executable, "-c", STARTER, line, where])
    while not (pid.exists() and pid.read_text()):
        assert mine.poll() is None
        time.sleep(0.05)
    mine.send_signal(getattr(signal, f"SIG{number}"))
    assert mine.wait(10) == -getattr(signal, f"SIG{number}")
    assert gone(int(pid.read_text()))


def test_its_folder_is_gone_afterwards():
    target = Process(command("npy"))
    folder = target._folder
    target.run(generate("sp", 0, 0))
    assert folder.exists()
    assert not list(folder.iterdir()), "emptied after every case"
    target.close()
    assert not folder.exists()


# --- what is said -------------------------------------------------------------------------------------------------


def schema():
    jsonschema = pytest.importorskip("jsonschema")
    text = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(text)
    return jsonschema.Draft202012Validator(text)


def cases():
    for operation in ("top_k", "sp", "sparse_mfac_direction", "power_compress", "low_rank_mfac", "sparse_mfac"):
        yield from (generate(operation, 0, index) for index in (0, 1))
    arguments = generate("sp", 0, 0).arguments
    ml_dtypes = pytest.importorskip("ml_dtypes")
    stored = {**arguments, "values": arguments["values"].astype(ml_dtypes.bfloat16)}
    yield Case("sp", "generic", "bf16", 0, 0, stored)


def test_every_message_that_is_sent_keeps_the_schema(tmp_path):
    valid = schema()
    valid.validate(start_message("/tmp/x"))
    for case in cases():
        for folder in (None, tmp_path):
            valid.validate(json.loads(json.dumps(run_message(case, 3, folder))))


def test_every_message_of_the_test_process_keeps_the_schema(monkeypatch):
    valid, seen = schema(), []
    ask = process.Pipe.ask

    def listen(self, message, timeout):
        seen.append(ask(self, message, timeout))
        return seen[-1]

    monkeypatch.setattr(process.Pipe, "ask", listen)
    checked("npy"), checked(""), check_command(command(), ["top_k"], cases=1), checked("raise")
    assert {m["type"] for m in seen} == {"ready", "result", "error"}
    for message in seen:
        valid.validate(message)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "run"},
        {"type": "result", "id": 0, "results": {}},
        {"type": "result", "id": 1, "results": {"u": {"dtype": "float8", "shape": []}}},
    ],
)
def test_the_schema_refuses(message):
    assert not schema().is_valid(message)


def test_arguments_come_back_as_they_went(tmp_path):
    for case in cases():
        for folder in (None, tmp_path):
            for name, value in case.arguments.items():
                if isinstance(value, np.ndarray):
                    sent = packed(value, folder, name)
                    if "npy" in sent:
                        sent["npy"] = Path(sent["npy"]).name
                    back = hostile.typed(sent, tmp_path)
                    assert back.dtype == value.dtype
                    assert back.tobytes() == np.ascontiguousarray(value).tobytes()


def test_empty_lists_are_empty_arrays_of_the_right_kind():
    found = unpacked("top_k", {"indices": [], "values": []}, "float32")
    assert [(a.shape, a.dtype.name) for a in found.values()] == [((0,), "int64"), ((0,), "float32")]


def test_bfloat16_travels_as_bits():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    sent = packed(np.array([1.0, -2.0], ml_dtypes.bfloat16), None, "v")
    assert sent == {"dtype": "bfloat16", "shape": [2], "base64": "gD8AwA=="}  # 0x3f80, 0xc000, little-endian


def test_a_process_without_bfloat16_is_not_sent_any():
    *_, stored = cases()
    target = Process(command())
    outcome = target.run(stored)
    target.close()
    assert outcome.kind == "NotImplementedError"


def test_optimizers_answer_directions_and_states():
    raw = {"u": [[1.0, 2.0]], "states": [{"t": 1, "xi": [0.0, 0.5], "S": None}]}
    found = unpacked("topk_sgd", raw, "float32")
    assert found["u"].dtype == np.float32
    assert found["states"][0]["t"] == 1
    assert "S" not in found["states"][0]


@pytest.mark.parametrize(
    ("operation", "raw", "words"),
    [
        ("sp", None, "expected results by name"),
        ("sp", {}, "expected the array omega"),
        ("sp", {"omega": "text"}, "must be a typed array"),
        ("sp", {"omega": {"dtype": "object", "shape": []}}, "dtype 'object'"),
        ("sp", {"omega": {"dtype": "float64", "shape": [1 << 40], "base64": ""}}, "needs more than"),
        ("sp", {"omega": [[1.0], [1.0, 2.0]]}, "cannot be read as an array"),
        ("topk_sgd", {"u": [[1.0]], "states": [1]}, "expected states as a list"),
    ],
)
def test_results_that_cannot_be_read_say_so(operation, raw, words):
    with pytest.raises(ResultShape, match=words.replace("(", r"\(")):
        unpacked(operation, raw, "float64")
