"""Whatever is wrong is said with the argument's name, before anything is launched."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from efcp_ref import gpu
from efcp_ref.gpu import catalogue, formats, geometry, window
from efcp_ref.gpu.cpu import build
from efcp_ref.gpu.cpu.device import CPU
from efcp_ref.gpu.device import chosen, current
from efcp_ref.gpu.formats import Format
from efcp_ref.gpu.launch import CUDA, DeviceArray, adopt
from efcp_ref.gpu.window import LCG, SP, Window

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="no g++: no kernel can run on the CPU")
I, V = np.int32([[0, 3], [1, 2]]), np.float32([[2, 1], [0.5, -1]])
g, c = np.ones(4, np.float32), np.ones(2, np.float32)
BIG = np.arange(700, dtype=np.int32)[None] * 100
ONES = np.ones((1, 700), np.float32)


class OnGPU:
    @property
    def __cuda_array_interface__(self):
        return {"shape": (4,), "typestr": "<f4", "data": (64, False), "version": 3}


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: gpu.sp(I.astype(float), V, g), TypeError, "indices has dtype float64, must hold integers"),
        (lambda: gpu.sp(I, V.astype(float), g), TypeError, "values has dtype float64, must be float32 or bfloat16"),
        (lambda: gpu.sp(I, V, g.astype(float)), TypeError, "g has dtype float64, must be float32"),
        (lambda: gpu.lcg(I, V, c.astype(float), 4), TypeError, "c has dtype float64, must be float32"),
        (lambda: gpu.sp(I, V[:1], g), ValueError, r"values has shape \(1, 2\)"),
        (lambda: gpu.sp(I, V, g[None]), ValueError, r"g has shape \(1, 4\)"),
        (lambda: gpu.lcg(I, V, g, 4), ValueError, r"c has shape \(4,\), must have shape \(2,\)"),
        (lambda: gpu.sp(I[:0], V[:0], g), ValueError, r"indices has shape \(0, 2\), no axis may be empty"),
        (lambda: gpu.sp(I + 1, V, g), ValueError, r"indices row 0 .* must be in 0\.\.3"),
        (lambda: gpu.sp(I - 1, V, g), ValueError, r"indices row 0 .* must be in 0\.\.3"),
        (lambda: gpu.sp(I * 0, V, g), ValueError, "indices row 0 repeats 0"),
        (lambda: gpu.sp(I[:, ::-1], V, g, 2, 0.5), ValueError, "indices row 0 is out of block order"),
        (lambda: gpu.lcg(I, V, c, 0), ValueError, "d = 0, must be in 1"),
        (lambda: gpu.lcg(I, V, c, 2**31), ValueError, "d = 2147483648, must be in 1"),
        (lambda: gpu.lcg(I, V, c, 4.0), TypeError, "d = 4.0, must be an integer"),
        (lambda: gpu.sp(I, V, g, 0, 0.5), ValueError, "block_size = 0"),
        (lambda: gpu.sp(I, V, g, 2, 1.5), ValueError, "density = 1.5"),
        (lambda: gpu.sp(I, V, np.float32([1, np.nan, 0, 0])), ValueError, "g holds NaN or infinity"),
        (lambda: gpu.lcg(I, V, c * np.float32(np.inf), 4), ValueError, "c holds NaN or infinity"),
        (lambda: gpu.sp(I, V, g, kernel="fastest"), ValueError, f"kernel = 'fastest', must be one of '{SP[0]}'"),
        (lambda: gpu.lcg(I, V, c, 4, kernel="slices"), ValueError, f"kernel = 'slices', must be one of '{LCG[0]}'"),
        (lambda: gpu.sp(I, V, g, threads=96), ValueError, "threads = 96, must be a power of two"),
        (lambda: gpu.sp(I, V, g, threads=2048), ValueError, r"threads = 2048, must be in 1\.\.1024"),
        (lambda: gpu.sp(I, V, g, kernel="warps", threads=33), ValueError, "threads = 33, must be a multiple of 32"),
        (lambda: gpu.lcg(I, V, c, 4, kernel="warp", threads=64), ValueError, "threads = 64, must be 32"),
        (lambda: gpu.lcg(I, V, c, 4, blocks=0), ValueError, "blocks = 0"),
        (lambda: gpu.sp(I, V, g, index="int16"), ValueError, "index = 'int16', must be one of 'absolute', 'uint16'"),
        (lambda: gpu.sp(I, V, OnGPU()), TypeError, "g lies in a GPU's memory, and the kernels run on the CPU"),
        (lambda: gpu.lcg(BIG, ONES, V[0, :1], 70_000, 70_000, 0.01, index="uint16"), ValueError,
         "block_size = 70000, must be at most 65536 for uint16"),
        (lambda: gpu.lcg(BIG, ONES, V[0, :1], 70_000, 70_000, 0.01, kernel="textbook"), ValueError,
         "block_size = 70000 needs 280000 bytes of shared memory, must be at most 58112 on CPU"),
        (lambda: gpu.sparse_mfac_direction(I, V, 4, 0.0, g), ValueError, "lam = 0.0, must be greater than 0"),
        (lambda: gpu.sparse_mfac_direction(I, V, 4, 1e-60, g), ValueError,
         "lam = 1e-60, must be positive .* in float32"),
        (lambda: gpu.sparse_mfac_direction(I, V, 4, 1e39, g), ValueError,
         r"lam = 1e\+39, must be .* finite in float32"),
        (lambda: gpu.sp(I[:, :0], V[:, :0], g), ValueError, r"indices has shape \(2, 0\), no axis may be empty"),
        (lambda: gpu.lcg(I[:0], V[:0], c[:0], 4), ValueError, r"indices has shape \(0, 2\), no axis may be empty"),
        (lambda: gpu.sparse_mfac_direction(I[:0], V[:0], 4, 1.0, g), ValueError,
         r"indices has shape \(0, 2\), no axis"),
        (lambda: gpu.sp(I, V, g[:0]), ValueError, r"g has shape \(0,\), no axis may be empty"),
        (lambda: gpu.sp(np.uint64([[0, 3], [1, 2**63]]), V, g), ValueError,
         r"indices row 1 .* 9223372036854775808 .* 0\.\.3"),
        (lambda: gpu.sp(np.int64([[0, 3], [1, -(2**40)]]), V, g), ValueError,
         r"indices row 1 .* -1099511627776 .* 0\.\.3"),
        (lambda: gpu.lcg(np.int32([[0, 3], [2, 2]]), V, c, 4), ValueError, "indices row 1 repeats 2"),
        (lambda: gpu.sparse_mfac_direction(I * 0, V, 4, 1.0, g), ValueError, "indices row 0 repeats 0"),
        (lambda: gpu.sp(I, V * np.float32(np.nan), g), ValueError, "values holds NaN or infinity"),
        (lambda: gpu.sp(I, V.astype(">f4"), g), TypeError, "values has dtype >f4, must be float32"),
        (lambda: gpu.sp(I, V, g[:1]), ValueError, r"indices has shape \(2, 2\), must have at most d = 1 entries"),
        (lambda: gpu.sp(I, V, g, 4, 0), ValueError, "density = 0, must be greater than 0"),
        (lambda: gpu.lcg(I, V, c, 4, threads=0), ValueError, r"threads = 0, must be in 1\.\.1024"),
        (lambda: gpu.lcg(I, V, c, 4, kernel="rows", threads=64), ValueError, "threads = 64, must be 128 or 1024"),
        (lambda: gpu.lcg(I, V, c, 4, blocks=2**20 + 1), ValueError, r"blocks = 1048577, must be in 1\.\.1048576"),
        (lambda: gpu.sp(BIG, ONES, np.ones(70_000, np.float32), 70_000, 0.01, kernel="slices"), ValueError,
         "block_size = 70000 needs 280000 bytes of shared memory, must be at most 58112 on CPU"),
        (lambda: gpu.sparse_mfac(d=70_000, m=1, lam=1.0, index="uint16"), ValueError,
         "block_size = 70000, must be at most 65536 for uint16"),
        (lambda: gpu.sparse_mfac(d=4, m=58_113, lam=1.0), ValueError, "m = 58113, must be at most 58112 on CPU"),
        (lambda: gpu.sparse_mfac(d=2**31, m=1, lam=1.0), ValueError, r"d = 2147483648, must be in 1\.\.2145386496"),
        (lambda: gpu.sp(I, V, g, device=3), TypeError, "device = 3, must be one of 'cpu', 'cuda', or"),
        (lambda: gpu.sparse_mfac(d=4, m=0, lam=1.0), ValueError, "m = 0, must be at least 1"),
        (lambda: gpu.sparse_mfac(d=4, m=1, lam=1.0, dtype="float16"), ValueError, "dtype = 'float16'"),
        (lambda: gpu.sparse_mfac(d=4, m=1, lam=1.0, order="random"), ValueError, "order = 'random'"),
        (lambda: gpu.sparse_mfac(d=10**9, m=50_000, lam=1.0), MemoryError, "need .* bytes .*window .* CPU has .* free"),
        (lambda: current("gpu"), ValueError, "device = 'gpu', must be one of 'cpu', 'cuda'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(monkeypatch, call, kind, words):
    monkeypatch.setenv("EFCP_DEVICE", "cpu")
    with pytest.raises(kind, match=words):
        call()


def test_too_many_rows_are_refused():
    rows = np.broadcast_to(np.int32([[0]]), (2**26 + 1, 1))  # no memory of its own
    with pytest.raises(ValueError, match="indices has 67108865 rows, must have at most 67108864"):
        Window(rows, rows, 4, 4, 1, Format())


def test_what_pycuda_lacks_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(ImportError, match=r"need PyCUDA \(pip install 'efcp-ref\[gpu\]'\) and NVIDIA's driver"):
        CUDA()


def test_a_bad_gradient_leaves_the_state_as_it_was():
    optimizer = gpu.sparse_mfac(d=4, m=2, lam=1.0, density=0.5, device="cpu")
    optimizer.step(g)
    before = optimizer.state()
    for bad in (g[:3], g.astype(float), np.float32([1, 2, np.inf, 0])):
        with pytest.raises((TypeError, ValueError), match=r"^g "):
            optimizer.step(bad)
    after = optimizer.state()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_bad_state_is_refused_whole():
    optimizer = gpu.sparse_mfac(d=4, m=2, lam=1.0, density=0.5, device="cpu")
    good = optimizer.state()
    with pytest.raises(KeyError, match="state lacks S"):
        optimizer.load({name: good[name] for name in good if name != "S"})
    for name, bad in (("row", 2), ("xi", g[:2]), ("indices", good["indices"] + 9), ("values", good["values"][:1])):
        with pytest.raises((TypeError, ValueError), match=name):
            optimizer.load({**good, name: bad})
    assert np.array_equal(optimizer.state()["indices"], good["indices"])


def test_read_only_strided_and_memory_mapped_arrays_are_valid(tmp_path):
    wide = np.zeros((2, 4), np.float32)
    wide[:, ::2] = V
    np.save(tmp_path / "g.npy", g)
    mapped = np.load(tmp_path / "g.npy", mmap_mode="r")
    assert gpu.sp(I, wide[:, ::2], mapped, device="cpu").tolist() == [3, -0.5]


def test_rows_are_not_checked_where_debugging_is_off(monkeypatch):
    monkeypatch.setenv("EFCP_DEBUG", "0")
    assert gpu.sp(I[:, ::-1].copy(), V, g, device="cpu").tolist() == [3, -0.5]  # k and shape still are
    with pytest.raises(ValueError, match=r"indices has shape \(2, 2\), must have 4 entries per row"):
        gpu.sp(I, V, g, 2, 1.0, device="cpu")


def test_a_launch_that_no_gpu_takes_is_refused_here_too():
    with pytest.raises(ValueError, match="asks for 240000 bytes of shared memory, CPU has 232448"):
        CPU().launch("sp", Format(), 1, 32, 240_000, 1, 1, 1, g, I, V, c)


def test_the_device_that_the_environment_names(monkeypatch):
    monkeypatch.setenv("EFCP_DEVICE", "cpu")
    assert chosen() == "cpu"
    monkeypatch.setenv("EFCP_DEVICE", "tpu")
    with pytest.raises(ValueError, match="EFCP_DEVICE = 'tpu'"):
        chosen()


def test_a_missing_compiler_is_said(monkeypatch):
    build.compiler.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="no-such-compiler, which is not installed: install g\\+\\+ or set CXX"):
        build.library(catalogue.FOLDER / "sp.cu", ("INDEX_BITS=32", "VALUE_BITS=32"))
    build.compiler.cache_clear()


def test_the_compilers_message_is_shown():
    with pytest.raises(RuntimeError, match="nonsense.* was not declared"):
        build.library(catalogue.FOLDER / "sp.cu", (), text='extern "C" __global__ void f(int n) { nonsense; }')


def test_a_folder_that_cannot_be_written_is_replaced_by_a_temporary_one(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert build.cache_folder().is_relative_to(tmp_path)


def test_an_array_on_a_gpu_must_be_contiguous():
    class Strided:
        @property
        def __cuda_array_interface__(self):
            return {"shape": (2, 3), "typestr": "<f4", "data": (64, False), "strides": (24, 8)}

    with pytest.raises(ValueError, match=r"g has strides \(24, 8\), must be contiguous: \(12, 4\)"):
        adopt("g", Strided())
    assert adopt("g", OnGPU()).pointer == 64
    row = DeviceArray(1000, (3, 5), np.dtype(np.uint16), None)[2]
    assert (row.pointer, row.shape, row.nbytes) == (1020, (5,), 10)


def test_every_kernel_fits_the_launches_that_are_made():
    assert all(k.threads <= geometry.H100.threads_per_block for k in catalogue.KERNELS.values())


def test_the_guide_says_the_limits():
    guide = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text()
    threads = geometry.H100.threads_per_block
    for said in (
        f"over {formats.LARGEST_UINT16:,} with",
        f"more than {threads:,} threads",
        f"d over {window.LARGEST_D:,}",
    ):
        assert said in guide
