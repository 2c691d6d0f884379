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
