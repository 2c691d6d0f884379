"""The command line: exit codes, help with examples, JSON, and what goes where."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from efcp_ref.cli import main
from efcp_ref.contract import NAMES

HERE = Path(__file__).parent / "targets_for_tests"


def run(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.mark.parametrize("arguments", [(), ("check",), ("list",), ("trace",), ("selftest",)])
def test_every_help_shows_an_example(arguments):
    result = run(*arguments, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"efcp-ref {' '.join(arguments) or 'check'}" in result.output


@pytest.mark.parametrize(("name", "code"), [("good", 0), ("mutates", 1), ("raises", 3), ("import_error", 3)])
def test_check_exits_as_designed(name, code):
    result = run("check", HERE / f"{name}.py", "--cases", 2, "-o", "sp")
    assert result.exit_code == code, result.output
    assert "\x1b" not in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "efcp_ref", "-o", "sp", "--report", ""), "'' is no folder"),
        (("check", "--outputs", ""), "'' is no folder"),
        (("check", "nowhere.py"), "no such target"), (("check", HERE / "good.py", "-o", "spp"), "did you mean sp"),
        (("check", HERE / "wrong_declaration.py"), "SOLVER"), (("check", HERE / "good.py", "--cases", 0), "cases"),
        (("list", "topk"), "did you mean top_k"), (("trace", "nothing"), "unknown operation"),
    ],
)  # fmt: skip
def test_wrong_usage_exits_with_2_and_says_why(arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_the_printed_command_reproduces_the_failure():
    first = json.loads(run("check", HERE / "mutates.py", "--cases", 3, "-o", "sp", "--json").output)
    (entry,) = [o for o in first["operations"] if o["operation"] == "sp"]
    failure = entry["failures"][0]
    words = failure["command"].split()
    assert words[:2] == ["efcp-ref", "check"]
    again = run(*words[1:], "--json")
    assert again.exit_code == 1
    (entry,) = [o for o in json.loads(again.output)["operations"] if o["operation"] == "sp"]
    assert (entry["failed"], entry["failures"][0]["case"]) == (1, failure["case"])


def test_list_shows_every_name():
    text = run("list").output
    rows = json.loads(run("list", "--json").output)
    assert [row["name"] for row in rows] == list(NAMES)
    assert all(f"{name}(" in text for name in NAMES)


def test_trace_prints_the_lines_of_the_paper():
    result = run("trace", "sparse_mfac", "--d", 6, "--steps", 2)
    assert result.exit_code == 0, result.output
    assert "1:5" in result.output


def test_trace_sets_the_steps_apart():
    lines = [line.strip() for line in run("trace", "topk_sgd", "--d", 4, "--steps", 3).stdout.splitlines()]
    starts = [number for number, line in enumerate(lines) if line.startswith("1:5")]
    assert len(starts) == 3
    assert lines[starts[1] - 1] == lines[starts[2] - 1] == ""


def test_the_module_is_the_command_and_its_help_is_quick():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run([sys.executable, "-m", "efcp_ref", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "check" in said.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.4  # of the processor: others may run


# --- wrong usage is told before anything runs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", HERE / "good.py", "-o", "sp", "--case", 999_999_999), "no case 999999999 of sp in seed 0"),
        (("check", HERE / "good.py", "-o", "top_k", "--case", 1_000_001), "no case 1000001 of top_k"),
        (("gen", "sp", "--case", 99_999_999_999), "no case 99999999999 of sp"),
        (("gen", "sp", "--cases", 1_000_001), "1<=x<=1,000,000"),
        (("check", HERE / "good.py", "--cases", "1e7"), "1<=x<=1,000,000"),
        *((("check", HERE / "good.py", "--timeout", bad), "--timeout") for bad in ("nan", "inf", "1e300", "0", "x")),
        *((("check", HERE / "good.py", "--memory", bad), "--memory") for bad in ("nan", "inf", "1e300", "0.0001")),
        (("trace", "sparse_mfac", "--d", 1_000_000_000), "4<=x<=256"),
        (("trace", "sparse_mfac", "--d", 10**20), "4<=x<=256"),
        (("trace", "sparse_mfac", "--steps", 10**20), "1<=x<=100"),
        (("check", HERE / "good.py", "--vectors", "."), "--vectors goes with --outputs"),
        (("check", HERE / "good.py", "--fresh"), "--fresh goes with --report"),
        *((("check", "--outputs", ".", option, value), f"{option} has no effect with --outputs") for option, value in (
            ("--seed", 0), ("--cases", 40), ("--dtype", "float32"), ("--timeout", 10), ("--memory", 8), ("--jobs", 2),
            ("--device", "cpu"), ("--workers", 2), ("--dask", "tcp://x"))),
        *((("check", HERE / "good.py", "--large", option, value), f"{option} has no effect with --large")
          for option, value in (("--cases", 40), ("--report", "x"), ("--jobs", 2), ("--workers", 2))),
        (("check", "--command", "true", "--device", "cpu"), "--device has no effect with --command"),
        (("check", HERE / "good.py", "--case", 1, "--cases", 40), "leave --cases out"),
        (("check", HERE / "good.py", "--case", 1, "--large"), "--large judges all"),
        (("gen", "sp", "--case", 1, "--cases", 2), "leave --cases out"),
        (("check", ""), "no such target ''"),
        (("selftest", "--seeds", 0), "x>=1"),
        (("replay", "run.efcp", "--start", 5, "--stop", 3), "no step is left"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_words(arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.output


def test_a_limit_of_zero_is_no_limit_and_a_short_timeout_is_kept():
    assert run("check", HERE / "good.py", "-o", "sp", "--case", 0, "--memory", 0, "--timeout", 9.5).exit_code == 0


def test_a_case_that_is_not_handed_over_is_not_called_not_offered():
    from efcp_ref.oracle.cases import generate

    index = next(i for i in range(1000) if "nan" in generate("top_k", 0, i).flags)
    result = run("check", HERE / "good.py", "-o", "top_k", "--case", index)
    assert result.exit_code == 3
    assert "not offered" not in result.output
    assert "holds NaN, and NAN is not declared" in result.output


def test_one_case_is_said_to_be_one_case():
    assert "1 pass (1 case each" in run("check", HERE / "good.py", "-o", "sp", "--case", 3).output


def test_an_operation_after_the_colon_is_explained():
    result = run("check", f"{HERE / 'good.py'}:top_k")
    assert result.exit_code == 3
    assert f"`efcp-ref check {HERE / 'good.py'} -o top_k` judges it" in result.output


def test_a_name_that_is_right_is_not_corrected(tmp_path):
    (tmp_path / "three.py").write_text("sp = 3")
    result = run("check", tmp_path / "three.py")
    assert "did you mean" not in result.output
    assert "sp is int, not a function" in result.output


# --- ends that are no verdict


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "arguments", [("--help",), ("list",), ("trace", "topk_sgd"), ("gen", "sp", "--cases", "2"), ("list", "--json")]
)
def test_output_that_finds_no_room_is_told_in_one_line(arguments):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "efcp_ref", *arguments]
        said = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert said.returncode == 3
    assert said.stderr == "Error: cannot write the output: No space left on device\n"


@pytest.mark.parametrize(
    ("arguments", "function"),
    [(("selftest",), "efcp_ref.oracle.selftest.run"), (("trace", "sp"), "efcp_ref.tracing.demo"),
     (("gen", "sp"), "efcp_ref.oracle.textmode.generated")],
)  # fmt: skip
def test_interrupted_is_no_verdict(arguments, function, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(function, stop)
    result = run(*arguments)
    assert result.exit_code == 130
    assert result.output.strip() == "interrupted"
