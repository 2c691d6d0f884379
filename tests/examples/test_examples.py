"""The examples are built and judged, each with its true verdict; what cannot run here is skipped with the reason."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from efcp_ref.oracle.judge import check_target
from efcp_ref.oracle.process import check_command
from efcp_ref.oracle.textmode import generated, text_of, verify

EXAMPLES = Path(__file__).parents[2] / "examples"


def tool(*names):
    """The first of these programs that is installed."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no {' or '.join(names)} here")
    return found


def built(*command, cwd=None):
    subprocess.run(list(map(str, command)), check=True, cwd=cwd, capture_output=True, text=True, timeout=100)


def lines_of_code(path):
    return sum(bool(line.strip()) for line in path.read_text().splitlines())


def piped(program, operation, cases, dtype="float64", decimal=False):
    """``gen OPERATION | program | verify OPERATION``."""
    text = "".join(text_of(case, decimal) for case in generated(operation, cases, dtype=dtype)).encode()
    out = subprocess.run([program], input=text, stdout=subprocess.PIPE, check=True, timeout=60).stdout
    return verify(operation, out, cases)


@pytest.fixture(scope="module")
def in_c(tmp_path_factory):
    program = tmp_path_factory.mktemp("c") / "mine"
    built(tool("cc", "gcc", "clang"), "-O2", "-std=c99", "-Wall", "-Wextra", "-Werror", "-o", program,
          EXAMPLES / "c" / "mine.c", "-lm")  # fmt: skip
    return program


@pytest.mark.parametrize("operation", ["sp", "lcg"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_c_in_text_mode_passes(in_c, operation, dtype):
    report = piped(in_c, operation, 40, dtype)
    assert report.exit_code == 0
    assert report[operation].passed >= 37


def test_c_is_short_and_needs_no_library():
    source = (EXAMPLES / "c" / "mine.c").read_text()
    assert len(source.splitlines()) < 100
    included = {line.split()[1] for line in source.splitlines() if line.startswith("#include")}
    assert included == {"<stdio.h>", "<stdlib.h>", "<string.h>"}


def test_an_operation_that_c_does_not_offer_is_an_error(in_c):
    assert piped(in_c, "top_k", 3).exit_code == 3


def test_cpp_over_json_lines_passes(tmp_path):
    program = tmp_path / "mine"
    built(tool("c++", "g++", "clang++"), "-O1", "-std=c++17", "-o", program, EXAMPLES / "cpp" / "mine.cpp")
    report = check_command(str(program), cases=20, shrink_seconds=0, timeout=30)
    assert report.exit_code == 0
    verdicts = {o.operation: o.verdict for o in report.operations if o.verdict != "skip"}
    assert verdicts == dict.fromkeys(("top_k", "sp", "lcg", "mfac_direction"), "pass")


def test_rust_in_text_mode_passes(tmp_path):
    cargo = tool("cargo")
    shutil.copytree(EXAMPLES / "rust", tmp_path / "rust")
    built(cargo, "build", "--release", "--offline", cwd=tmp_path / "rust")
    program = tmp_path / "rust" / "target" / "release" / "mine"
    for operation in ("sp", "top_k"):
        report = piped(program, operation, 40, decimal=True)
        assert report.exit_code == 0
        assert report[operation].passed >= 35


def test_torch_passes():
    pytest.importorskip("torch")
    report = check_target(str(EXAMPLES / "torch" / "my_torch.py"), cases=20, timeout=60, shrink_seconds=0)
    assert report.exit_code == 0
    assert sum(o.verdict == "pass" for o in report.operations) == 5


def jax_report(path):
    """JAX reserves more addresses than it uses, and compiles every shape anew: few cases, much time."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("no JAX here: the example is not run")
    only = [0, 32]  # a plain case, and the subnormal one
    return [check_target(str(path), ["lcg"], memory=0.0, timeout=60, shrink_seconds=0, only=i) for i in only]


def test_jax_passes():
    assert [report.exit_code for report in jax_report(EXAMPLES / "jax" / "my_jax.py")] == [0, 0]


def test_jax_fails_on_subnormal_numbers_where_it_does_not_declare_that_it_flushes_them(tmp_path):
    source = (EXAMPLES / "jax" / "my_jax.py").read_text().splitlines()
    path = tmp_path / "undeclared.py"
    path.write_text("\n".join(line for line in source if not line.startswith("ARITHMETIC")))
    plain, subnormal = jax_report(path)
    assert plain.exit_code == 0
    assert subnormal.exit_code == 1
    assert subnormal["lcg"].failures[0].verdict.case.label == "subnormal entries"


def test_cupy_passes_on_a_gpu():
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("no CuPy here: the example is not run")
    seen = subprocess.run([sys.executable, "-c", "import cupy; cupy.cuda.Device(0).compute_capability"],
                          capture_output=True, check=False)  # fmt: skip
    if seen.returncode:
        pytest.skip("CuPy finds no GPU: the example is not run")
    report = check_target(str(EXAMPLES / "cupy" / "my_cupy.py"), cases=20, memory=0.0, timeout=60, shrink_seconds=0)
    assert report.exit_code == 0
