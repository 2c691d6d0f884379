"""The doors on the command line: pipes, processes, files, and what is wrong usage."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import efcp_ref
from efcp_ref.cli import main
from efcp_ref.oracle.vectors import read

HERE = Path(__file__).parent
PROCESS = f"{sys.executable} {HERE / 'targets_for_tests' / 'process_good.py'}"
VECTORS = HERE.parent / "vectors" / "v1"


def run(*arguments, **more):
    return CliRunner().invoke(main, list(map(str, arguments)), **more)


@pytest.mark.parametrize("command", ["check", "vectors", "gen", "verify"])
def test_every_help_shows_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output


def test_check_command():
    result = run("check", "--command", PROCESS, "-o", "sp", "--cases", 3, "--json")
    assert result.exit_code == 0
    [entry] = [o for o in json.loads(result.output)["operations"] if o["verdict"] != "skip"]
    assert entry["operation"] == "sp"


def test_the_printed_command_reproduces_a_process(tmp_path):
    first = run("check", "--command", f"{PROCESS} wrong", "-o", "sp", "--cases", 1, "--json")
    assert first.exit_code == 1
    [entry] = [o for o in json.loads(first.output)["operations"] if o["verdict"] == "fail"]
    import shlex

    again = run(*shlex.split(entry["failures"][0]["command"])[1:])
    assert again.exit_code == 1


def test_check_outputs(tmp_path):
    for vector in read(VECTORS):
        if vector.case.operation == "sp":
            (tmp_path / vector.id / "out").mkdir(parents=True)
            np.save(tmp_path / vector.id / "out" / "omega.npy", efcp_ref.sp(*vector.case.arguments.values()))
    assert run("check", "--outputs", tmp_path, "--vectors", VECTORS).exit_code == 0
    assert run("check", "--outputs", tmp_path).exit_code == 2
    np.save(tmp_path / "sp" / "0001" / "out" / "omega.npy", np.ones(3))
    result = run("check", "--outputs", tmp_path, "--vectors", VECTORS)
    assert result.exit_code == 1
    assert f"reproduce  efcp-ref check --outputs {tmp_path} --vectors {VECTORS} --operation sp" in result.output


@pytest.mark.parametrize("arguments", [(), ("a.py", "--command", "true"), ("--command", "true", "--outputs", ".")])
def test_exactly_one_door_is_named(arguments):
    result = run("check", *arguments)
    assert result.exit_code == 2
    assert "name one of TARGET, --command and --outputs" in result.output


def test_a_folder_that_cannot_be_written_is_wrong_usage(tmp_path):
    (tmp_path / "campaign.json").mkdir()
    for folder in ("/proc/none", tmp_path):
        result = run("check", "efcp_ref", "--report", folder, "--operation", "sp", "--cases", "1")
        assert result.exit_code == 2
        assert str(folder) in result.output
    assert run("vectors", "/proc/none").exit_code == 2


def test_vectors_are_written_and_compared(tmp_path):
    folder = tmp_path / "v"
    assert "cases in" in run("vectors", folder, "-o", "top_k").output
    assert (folder / "top_k" / "0000" / "case.json").read_bytes() == (VECTORS / "top_k/0000/case.json").read_bytes()
    again = run("vectors", folder)
    assert again.exit_code == 2
    assert "new or empty" in again.output
    assert run("vectors", tmp_path / "w", "-o", "tea").exit_code == 2


def test_gen_pipes_into_verify():
    text = run("gen", "sp", "--cases", 2, "--seed", 5).output
    assert text.startswith("case sp 5 0 float64\nindices int32 2 ")
    assert "0x" not in run("gen", "sp", "--cases", 1, "--decimal").output
    result = run("verify", "sp", "--cases", 2, input="case sp 5 0 omega float64 1 1 0 end")
    assert result.exit_code == 1
    assert "reproduce  efcp-ref gen sp --seed 5 --case 0 --dtype float64 | ./mine | efcp-ref verify sp" in result.output
    assert run("verify", "tea", input="").exit_code == 2


def test_a_real_pipe():
    module = [sys.executable, "-m", "efcp_ref"]
    made = subprocess.run([*module, "gen", "top_k", "--cases", "3"], capture_output=True, check=True)
    verify = [*module, "verify", "top_k", "--cases", "3"]
    out = subprocess.run(verify, input=made.stdout, capture_output=True, check=False)
    assert out.returncode in (1, 3), "arguments are no results"


def test_chosen_vectors_alone_are_compared(tmp_path):
    folder = tmp_path / "v"
    run("vectors", folder, "-o", "top_k")
    assert run("vectors", folder, "-o", "top_k", "--check").exit_code == 0
    (folder / "top_k" / "0000" / "case.json").write_text("{}")
    result = run("vectors", folder, "-o", "top_k", "--check")
    assert result.exit_code == 1
    assert result.stdout.split() == ["top_k/0000/case.json"]


def test_where_no_results_lie_it_says_where_they_were_looked_for(tmp_path):
    result = run("check", "--outputs", tmp_path, "--vectors", VECTORS, "-o", "sp")
    assert result.exit_code == 3
    assert f"has a folder such as {tmp_path / 'sp' / '0000' / 'out'}" in result.output


@pytest.mark.parametrize("head", ["case sp 0 99999999999 float64\nomega float64 1 1 0x1p0\nend", "case sp 0 -3 float64",
                                  "case sp -1 0", "case sp 0 -3 end case sp 0 -2 end"])  # fmt: skip
def test_a_case_that_cannot_be_is_refused(head):
    result = run("verify", "sp", input=head)
    assert result.exit_code == 2
    assert "no case " in result.output


def test_nothing_read_is_called_that():
    result = run("verify", "sp", input="")
    assert result.exit_code == 3
    assert "nothing was read" in result.output
