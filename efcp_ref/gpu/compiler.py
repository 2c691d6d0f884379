"""Compile a kernel file for a GPU: with nvcc, else with NVRTC from its wheel. Neither needs a GPU or a driver."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from efcp_ref.gpu.cpu.build import cache_folder


@dataclass(frozen=True)
class Compiled:
    """A kernel file compiled for one architecture, and what the assembler said of it."""

    cubin: bytes
    log: str

    @property
    def registers(self) -> int:
        """Registers per thread, the most of all kernels of the file."""
        return max((int(n) for n in re.findall(r"Used (\d+) registers", self.log)), default=0)

    @property
    def spilled(self) -> int:
        """Bytes of stack and of registers spilled to memory."""
        return sum(int(n) for n in re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", self.log))


def available() -> str:
    """Return the compiler that is used: a path of nvcc (EFCP_NVCC, or on PATH), "nvrtc", or "" where there is none."""
    nvcc = os.environ.get("EFCP_NVCC") or shutil.which("nvcc")
    return nvcc or ("nvrtc" if _nvrtc_library() else "")


def compiled(path: Path, architecture: str, defines: tuple[str, ...], compiler: str = "") -> Compiled:
    """Return a kernel file compiled for an architecture such as "sm_90".

    Raises:
        RuntimeError: no compiler, or it failed; the message ends with what it wrote.
    """
    name = compiler or available()
    if not name:
        raise RuntimeError("no CUDA compiler: put nvcc on PATH, or pip install nvidia-cuda-nvrtc")
    if name == "nvrtc":
        return _with_nvrtc(path, architecture, defines)
    return _with_nvcc(name, path, architecture, defines)


def cached(path: Path, architecture: str, defines: tuple[str, ...]) -> bytes:
    """Return the compiled file, kept in the cache of `cpu.build` by what it was made of."""
    name = available()
    headers = "".join(h.read_text() for h in sorted(path.parent.glob("*.cuh")))
    about = "\0".join([path.read_text(), headers, architecture, name, _version(name), *defines])
    key = hashlib.sha256(about.encode()).hexdigest()[:20]
    file = cache_folder() / f"{path.stem}-{architecture}-{key}.cubin"
    if not file.exists():
        made = compiled(path, architecture, defines).cubin
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as scratch:
            scratch.write(made)
        os.replace(scratch.name, file)
    return file.read_bytes()


@cache
def _version(name: str) -> str:
    if name in ("", "nvrtc"):
        return str(_nvrtc_library())
    return subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout


def _with_nvcc(nvcc: str, path: Path, architecture: str, defines: tuple[str, ...]) -> Compiled:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "kernel.cubin"
        options = ["-cubin", f"-arch={architecture}", "-Xptxas", "-v", *(f"-D{define}" for define in defines)]
        command = [nvcc, *options, "-o", str(made), str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{nvcc} failed on {path.name}: {(done.stdout + done.stderr)[-3000:]}")
        return Compiled(made.read_bytes(), done.stdout + done.stderr)


@cache
def _nvrtc_library() -> Path | None:
    folders = [Path(p) for p in sys.path if p]
    found = [file for folder in folders for file in sorted(folder.glob("nvidia/*/lib/libnvrtc.so.*"))]
    return next((file for file in found if ".alt." not in file.name), None)


@cache
def _nvrtc() -> ctypes.CDLL:
    library = _nvrtc_library()
    assert library is not None
    for file in sorted(library.parent.glob("libnvrtc-builtins.so.*")):  # found again by name, without LD_LIBRARY_PATH
        if ".alt." not in file.name:
            ctypes.CDLL(str(file))
    return ctypes.CDLL(str(library))


def _text(nvrtc: ctypes.CDLL, program: Any, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def _with_nvrtc(path: Path, architecture: str, defines: tuple[str, ...]) -> Compiled:
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    headers = sorted(path.parent.glob("*.cuh"))

    def array(items: list[bytes]) -> Any:
        return (ctypes.c_char_p * len(items))(*items)

    texts, names = array([h.read_bytes() for h in headers]), array([h.name.encode() for h in headers])
    source, name = path.read_bytes(), path.name.encode()
    code = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, name, len(headers), texts, names)
    if code:
        raise RuntimeError(f"NVRTC refuses {path.name}: error {code}")
    options = [f"--gpu-architecture={architecture}", "--ptxas-options=-v", *(f"-D{define}" for define in defines)]
    code = nvrtc.nvrtcCompileProgram(program, len(options), array([o.encode() for o in options]))
    log = _text(nvrtc, program, "ProgramLog").rstrip(b"\0").decode()
    if code:
        raise RuntimeError(f"NVRTC failed on {path.name}: {log[-3000:]}")
    return Compiled(_text(nvrtc, program, "CUBIN"), log)
