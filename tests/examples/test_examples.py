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


def judged(path, **more):
    """Exit code and verdicts of what a file offers."""
    report = check_target(str(path), shrink_seconds=0, timeout=60, **more)
    return report.exit_code, {o.operation: o.verdict for o in report.operations if o.verdict != "skip"}


def test_optimizers_of_pytorch_have_their_true_verdicts():
    pytest.importorskip("torch")
    folder = EXAMPLES / "torch"
    assert judged(folder / "my_optimizer.py", cases=12) == (0, {"ef_signsgd": "pass"})
    assert judged(folder / "my_wrong_optimizer.py", cases=12) == (1, {"ef_signsgd": "fail"})
    assert judged(folder / "adagrad.py", cases=15) == (0, {"adagrad_ef": "pass"})


def test_our_shells_pass_through_the_adapter():
    pytest.importorskip("torch")
    exit_code, verdicts = judged(EXAMPLES / "torch" / "shells.py", cases=8)
    names = ["adagrad_ef", "dense_mfac", "ef_signsgd", "low_rank_mfac", "sparse_ggt", "sparse_mfac"]
    assert exit_code == 0
    assert verdicts == dict.fromkeys(names, "pass")


def test_optax_chains_pass():
    for name in ("jax", "optax"):
        pytest.importorskip(name, reason=f"no {name} here: the optax example is not run")
    path = EXAMPLES / "jax" / "my_optax.py"
    assert judged(path, cases=6, memory=0.0) == (0, {"topk_sgd": "pass", "adagrad_ef": "pass"})


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


STAND_IN = '''"""What the example uses of CuPy, on NumPy arrays: no bfloat16, and get() gives an array back."""
import contextlib, types
import numpy as np

class ndarray(np.ndarray):
    def get(self): return np.asarray(self)

ndarray.__module__ = "cupy"
cuda = types.SimpleNamespace(Device=lambda n: contextlib.nullcontext())

def asarray(a):
    if np.asarray(a).dtype.kind not in "iufb": raise TypeError(f"Unsupported dtype {a.dtype}")
    return np.array(a).view(ndarray)

def zeros(shape, dtype): return np.zeros(shape, dtype).view(ndarray)

abs, argsort, add = np.abs, np.argsort, np.add
'''


def test_the_logic_of_the_cupy_example_passes_with_a_stand_in_for_cupy(tmp_path, monkeypatch):
    """No GPU and no CuPy: this says nothing of either."""
    (tmp_path / "cupy.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    report = check_target(str(EXAMPLES / "cupy" / "my_cupy.py"), cases=40, shrink_seconds=0)
    verdicts = {o.operation: o.verdict for o in report.operations if o.verdict != "skip"}
    assert verdicts == dict.fromkeys(("top_k", "sp", "lcg"), "pass")
    assert report["lcg"].errors == {}


def test_cupy_passes_on_a_gpu():
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("no CuPy here: the example is not run")
    seen = subprocess.run([sys.executable, "-c", "import cupy; cupy.cuda.Device(0).compute_capability"],
                          capture_output=True, check=False)  # fmt: skip
    if seen.returncode:
        pytest.skip("CuPy finds no GPU: the example is not run")
    report = check_target(str(EXAMPLES / "cupy" / "my_cupy.py"), cases=20, memory=0.0, timeout=60, shrink_seconds=0)
    assert report.exit_code == 0
