"""``efcp-ref bench`` and ``efcp-ref check --large``."""

import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from efcp_ref.cli import main


def test_bench_names_its_figures_where_one_is_unknown(capfd):
    assert CliRunner().invoke(main, ["bench", "nothing"]).exit_code == 2
    said = capfd.readouterr().err
    assert all(name in said for name in ("products", "top_k", "step_bert"))


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C to a process group")
def test_ctrl_c_ends_bench_with_one_sentence():
    command = [sys.executable, "-m", "efcp_ref", "bench", "imports"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as bench:
        first = bench.stdout.readline()
        os.killpg(bench.pid, signal.SIGINT)
        said, _ = bench.communicate(timeout=60)
    assert first.startswith("1/1 imports: ")
    assert "interrupted in imports, 0 of 1 measured; the same command continues there" in said
    assert bench.returncode == 130


def test_large_judges_a_target():
    done = CliRunner().invoke(main, ["check", "efcp_ref.fast", "--large", "-o", "power_compress", "--json"])
    assert done.exit_code == 0
    assert '"verdict": "pass"' in done.output


def test_large_needs_a_target():
    done = CliRunner().invoke(main, ["check", "--command", "true", "--large"])
    assert done.exit_code == 2
    assert "--large needs a TARGET" in done.output
