"""PyCUDA's own launcher before a driver whose device is the CPU. Needs PyCUDA: see ``.ci/pycuda_on_cpu``."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from efcp_ref.gpu.cpu import driver

ROOT = Path(__file__).parents[2]
_FOUND = importlib.util.find_spec("pycuda")
pytestmark = pytest.mark.skipif(
    not _FOUND or not shutil.which("g++"), reason="no PyCUDA: its launcher was not driven (bash .ci/pycuda_on_cpu does)"
)


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """What a process needs to see the CPU as a GPU."""
    folder = tmp_path_factory.mktemp("driver")
    extension = next(Path(_FOUND.origin).parent.glob("_driver*.so"))
    driver.make(extension, folder)
    here = {"LD_LIBRARY_PATH": str(folder), "EFCP_NVCC": str(folder / "nvcc"), "EFCP_DEVICE": "cuda"}
    return os.environ | here | {"PYTHONPATH": str(ROOT), "EFCP_DEBUG": "1", "OPENBLAS_NUM_THREADS": "1"}


OPENING = """
import numpy as np
from efcp_ref import gpu
from efcp_ref.gpu.device import current
cuda, cpu = current('cuda'), current('cpu')
"""


def run(code, environment, opening=OPENING, **more):
    command = [sys.executable, "-c", opening + code]
    done = subprocess.run(command, env=environment | more, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PyCUDA" not in done.stderr  # its warnings and errors of clean-up
    return done.stdout


def test_every_kernel_in_every_format_gives_what_the_cpu_gives(environment):
    code = """
from efcp_ref.gpu import window
from efcp_ref.gpu.formats import FORMATS
from tests.gpu.problems import problem
for form in FORMATS:
    p = problem(30_000, 4, 14_000, 0.01, form)   # 56,000 bytes of shared memory: more than without the attribute
    for kernels, call, size in ((window.SP, window.scalar_products, p.m), (window.LCG, window.linear_combination, p.d)):
        for kernel in kernels:
            results = []
            for device in (cuda, cpu):
                w, x, omega = p.on(device), device.put(p.g if size == p.m else p.c), device.empty((size,), np.float32)
                call(device, w, x, omega, kernel)
                results.append(device.get(omega))
            assert np.array_equal(*results), (form, kernel)
            print("same")
"""
    assert run(code, environment).split() == ["same"] * 4 * 9


def test_the_optimizer_stays_on_the_device_and_gives_what_the_cpu_gives(environment):
    code = """
import pycuda.autoprimaryctx, pycuda.driver as driver
rng, stream = np.random.default_rng(0), driver.Stream()
layout = dict(d=5000, m=3, lam=1.0, block_size=2048, density=0.05, dtype="bfloat16", index="uint16")
layout |= dict(kernel="fast", order="bank")
ours, theirs = gpu.sparse_mfac(**layout, device=cuda), gpu.sparse_mfac(**layout, device=cpu)
for _ in range(4):
    g = rng.standard_normal(5000).astype(np.float32)
    on_device = cuda.put(g)
    before = cuda.transfers
    u = ours.step(on_device, stream)
    assert cuda.transfers - before == 1  # the gradient, looked at because EFCP_DEBUG is 1; the step itself: none
    stream.synchronize()
    assert u.__cuda_array_interface__["shape"] == (5000,)
    assert np.array_equal(cuda.get(u), theirs.step(g))
a, b = ours.state(), theirs.state()
assert all(np.array_equal(a[name], b[name]) for name in a)
gpu.sparse_mfac(**layout, device=cuda).load(a)
import os; os.environ["EFCP_DEBUG"] = "0"
before = cuda.transfers
ours.step(on_device)
print(cuda.transfers - before)
"""
    assert run(code, environment).split() == ["0"]


def test_results_stay_where_the_arguments_are(environment):
    code = """
I, V, g = np.int32([[0, 3], [1, 2]]), np.float32([[2, 1], [0.5, -1]]), np.float32([1, 2, 3, 4])
on = [cuda.put(a) for a in (I, V, g)]
print(gpu.sp(I, V, g).tolist(), cuda.get(gpu.sp(*on)).tolist(), type(gpu.sp(*on)).__name__)
class Other:  # an array of another library
    def __init__(self, a): self.held, self.__cuda_array_interface__ = a, a.__cuda_array_interface__
print(cuda.get(gpu.sp(*map(Other, on))).tolist())
for wrong, words in (((on[0], V, g), "values lies in the host"), ((on[1], on[1], on[2]), "indices has dtype float32"),
                     ((cuda.put(I * 0), on[1], on[2]), "repeats 0")):
    try: gpu.sp(*wrong)
    except (TypeError, ValueError) as why: print(words in str(why))
"""
    lines = run(code, environment).splitlines()
    assert lines == ["[6.0, -2.0] [6.0, -2.0] DeviceArray", "[6.0, -2.0]", "True", "True", "True"]


def test_out_of_memory_says_what_it_needs(environment):
    code = """
for call in (lambda: cuda.empty((10**6,), np.float32), lambda: gpu.sparse_mfac(d=10**6, m=10, lam=1.0)):
    try: call()
    except MemoryError as why: print(why)
"""
    lines = run(code, environment, EFCP_CPU_MEMORY="1000000").splitlines()
    assert "shape (1000000,) needs 4,000,000 bytes" in lines[0]
    assert "d = 1000000, m = 10 and 10000 entries per row need" in lines[1]


def test_what_the_driver_refuses_is_an_error_with_a_message(environment):
    code = """
from efcp_ref.gpu.formats import Format
a = cuda.put(np.zeros(8, np.float32))
cuda._allow = lambda function, shared: None   # as if the attribute had been forgotten
try: cuda.launch("sp", Format(), 1, 32, 60_000, 1, 1, 1, a, a, a, a)
except RuntimeError as why: print(why)
"""
    said = run(code, environment)
    assert "kernel sp, 1 blocks of 32 threads with 60000 bytes of shared memory" in said
    assert "MAX_DYNAMIC_SHARED_SIZE_BYTES" in said


ALIVE = {  # at the last line, or when a thread ends
    "an array": "a = cuda.put(np.zeros(8, np.float32))",
    "a result, a row of it, and who reads its interface": """
I, V, g = (cuda.put(a) for a in (np.int32([[0, 3], [1, 2]]), np.float32([[2, 1], [0.5, -1]]), np.float32([1, 2, 3, 4])))
u = gpu.sparse_mfac_direction(I, V, 4, 1.0, g)
row, other = u.S[1], u.u.__cuda_array_interface__
""",
    "an optimizer": """
o = gpu.sparse_mfac(d=100, m=2, lam=1.0, density=0.1)
u = o.step(cuda.put(np.ones(100, np.float32)))
""",
    "a cycle, a stream, a kernel, what an exit handler uses": """
import atexit
from efcp_ref.gpu.formats import Format
import pycuda.driver as driver
a, function = cuda.put(np.zeros(8, np.float32)), cuda._function("sp", Format())
with cuda.active(): stream = driver.Stream()
class Knot: pass
knot = Knot(); knot.self, knot.a, knot.stream = knot, cuda.put(np.ones(8, np.float32)), stream
del knot
atexit.register(lambda: print(cuda.get(cuda.put(np.ones(3, np.float32)))))
""",
    "an array in the frame of an exception": """
def f():
    a = cuda.put(np.zeros(8, np.float32))
    raise SystemExit
f()
""",
    "arrays of a thread that has ended": """
import threading
kept = []
def work():
    kept.append(cuda.put(np.arange(8, dtype=np.float32)))
    local = cuda.put(np.zeros(8, np.float32))
    kept.append(gpu.sparse_mfac(d=100, m=2, lam=1.0, density=0.1))
    kept[1].step(np.ones(100, np.float32))
thread = threading.Thread(target=work)
thread.start(); thread.join()
assert cuda.get(kept[0]).tolist() == list(range(8))
""",
    "arrays that a thread lets go of": """
import threading
kept = [cuda.put(np.zeros(8, np.float32)) for _ in range(9)]
thread = threading.Thread(target=kept.clear)
thread.start(); thread.join()
assert cuda._pool.bytes() == 9 * 32
before = cuda.free_memory()
cuda._pool.clear()
assert (cuda._pool.bytes(), cuda.free_memory()) == (0, before)
""",
    "a thread that does not end": """
import threading, time
def work():
    while True: a = cuda.put(np.zeros(8, np.float32))
threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
""",
}


@pytest.mark.parametrize("code", ALIVE.values(), ids=ALIVE)
def test_what_is_alive_may_outlive_the_last_line(environment, code):
    run(code, environment)


def test_a_device_that_a_thread_has_opened_goes_on_without_it(environment):
    code = """
import threading
import numpy as np
from efcp_ref import gpu
kept = []
thread = threading.Thread(target=lambda: kept.append(gpu.current("cuda").put(np.arange(8, dtype=np.float32))))
thread.start(); thread.join()
print(gpu.current("cuda").get(kept[0]).sum())
kept.append(gpu.current("cuda").put(np.zeros(9, np.float32)))
"""
    assert run(code, environment, opening="") == "28.0\n"


FAIL = """
from efcp_ref.gpu.formats import Format
a = [cuda.put(np.zeros(600, np.float32)) for _ in range(4)]
def fail():
    try: cuda.launch("lcg", Format(), 1, 32, 400, 600, 1, 600, 1, 1, *a)   # 600 entries, and room for 100
    except RuntimeError as why: print(why)
"""


@pytest.mark.parametrize(
    "where", ["fail()", "import threading; t = threading.Thread(target=fail); t.start(); t.join()"]
)
def test_a_kernel_that_fails_is_an_error_with_a_message_and_so_is_what_comes_next(environment, where):
    code = (
        FAIL
        + where
        + """
for call in (lambda: cuda.put(np.zeros(8, np.float32)), lambda: cuda.get(a[0]), fail):
    try: call()
    except Exception as why: print(why)
b = a[1]
a.clear()
"""
    )
    command = [sys.executable, "-c", OPENING + code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    first, *others = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "kernel lcg, 1 blocks of 32 threads with 400 bytes of shared memory" in first
    assert "a thread writes outside an array of 400 bytes of shared memory, 400 bytes from its start" in first
    assert len(others) == 3
    assert all("719" in line for line in others)


AUTOINIT = """
import numpy as np
import pycuda.autoinit
from pycuda import gpuarray
from efcp_ref import gpu
I, V, g = np.int32([[0, 3], [1, 2]]), np.float32([[2, 1], [0.5, -1]]), np.float32([1, 2, 3, 4])
"""


def test_a_context_that_the_user_has_made_is_used(environment):
    code = """
on = [gpuarray.to_gpu(a) for a in (I, V, g)]
omega = gpu.sp(*on)
print(gpuarray.GPUArray((2,), np.float32, base=omega, gpudata=omega.pointer).get().tolist())
other = gpuarray.to_gpu(g)   # the user's context is current as before
"""
    assert run(code, environment, opening=AUTOINIT) == "[6.0, -2.0]\n"


def test_PyTorchs_and_CuPys_context_is_used_where_the_user_has_made_none(environment):
    code = """
import pycuda.autoprimaryctx
from pycuda import gpuarray
I, V, g = np.int32([[0, 3], [1, 2]]), np.float32([[2, 1], [0.5, -1]]), np.float32([1, 2, 3, 4])
print(cuda.get(gpu.sp(*(gpuarray.to_gpu(a) for a in (I, V, g)))).tolist())
"""
    assert run(code, environment) == "[6.0, -2.0]\n"


def test_an_array_of_another_context_or_another_gpu_is_refused(environment):
    code = """
gpu.sp(I, V, g)
import os, pycuda.autoinit
from pycuda import gpuarray
class Nowhere: __cuda_array_interface__ = {"shape": (4,), "typestr": "<f4", "data": (64, False), "version": 3}
theirs, ours = gpuarray.to_gpu(g), gpu.current("cuda").put(g)
class Other: __cuda_array_interface__ = ours.__cuda_array_interface__
for name, a in (("0", theirs), ("0", Nowhere), ("1", Other), ("0", Other)):
    os.environ["EFCP_CPU_ORDINAL"] = name
    try: print(gpu.sp(gpu.current("cuda").put(I), gpu.current("cuda").put(V), a).shape)
    except ValueError as why: print(why)
"""
    opening = AUTOINIT.replace("import pycuda.autoinit\nfrom pycuda import gpuarray\n", "")
    assert run(code, environment, opening=opening).splitlines() == [
        "g lies in another context than the kernels': import pycuda.autoinit before the first kernel, or "
        "pycuda.autoprimaryctx in its place",
        "g points to 0x40, which is no memory of a GPU",
        "g lies on GPU 1, and the kernels run on GPU 0",
        "(2,)",
    ]


def test_memory_of_arrays_that_are_gone_serves_others(environment):
    code = """
for _ in range(5): a = cuda.put(np.zeros(200_000, np.float32))        # 800 kB each, of a million
b = a; del a
print(cuda.free_memory())
del b
print(cuda.free_memory(), cuda.empty((240_000,), np.float32).nbytes)  # of another size
"""
    assert run(code, environment, EFCP_CPU_MEMORY="1700000").split() == ["900000", "1700000", "960000"]


def test_no_device_is_said(environment):
    command = [sys.executable, "benchmarks/gpu/bench.py"]
    done = subprocess.run(command, env=environment | {"EFCP_CPU_INIT": "100"}, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("nothing is measured: PyCUDA finds no GPU that it can use (")


def test_the_oracle_passes_it(environment):
    command = [sys.executable, "-m", "efcp_ref", "check", "efcp_ref.gpu", "--device", "cuda", "--cases", "12"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 pass" in done.stdout


@pytest.mark.parametrize("sanitizer", [True, False])
def test_the_gpu_script_runs(environment, tmp_path, sanitizer):
    small = {"EFCP_RESULTS": str(tmp_path), "EFCP_CASES": "2", "EFCP_D": "5000", "EFCP_M": "4"}
    if sanitizer:  # one that hands over to the program
        stand_in = tmp_path / "compute-sanitizer"
        stand_in.write_text('#!/bin/sh\necho "under $2"\nshift 4\nexec "$@"\n')
        stand_in.chmod(0o755)
        small["PATH"] = f"{tmp_path}:{environment['PATH']}"
    command = ["bash", "benchmarks/gpu/run", sys.executable]
    done = subprocess.run(command, env=environment | small, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("every kernel ran in every format") == 2 * sanitizer
    assert ("under memcheck" in done.stdout) == ("under racecheck" in done.stdout) == sanitizer
    assert ("skipped: 2 (no compute-sanitizer" in done.stdout) != sanitizer
    assert "no GPU figure" in done.stdout  # the stand-in is recognised
    report = json.loads((tmp_path / "gpu_trial.json").read_text())
    assert not report["a GPU"]
    assert {row["what"] for row in report["rows"]} == {"SP", "LCG", "step"}
