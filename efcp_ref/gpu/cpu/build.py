"""Compile a kernel file for the CPU, once: the library stays in a cache, named by what it was made of."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
KERNELS = FOLDER.parent / "kernels"
SANITIZERS = {
    "": (),
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
    "thread": ("-fsanitize=thread",),
}
# -ffp-contract=off: no fused multiply-add, so that NumPy can do the same operations, bit for bit.
FLAGS = (
    "-std=c++20", "-O2", "-g1", "-fPIC", "-shared", "-w", "-ffp-contract=off", "-fno-math-errno",
    "-fvisibility=hidden", "-fno-gnu-unique",
)  # fmt: skip

# What no macro can do.
DYNAMIC = re.compile(r"extern\s+__shared__\s+(\w+)\s+(\w+)\[\];")
FIXED = re.compile(r"__shared__\s+(\w+)\s+(\w+)\[([^\]]+)\];")
_HEAD = re.compile(r"(__global__|__device__)((?:[^({;]|__launch_bounds__\([^)]*\))*)\(([^)]*)\)(?=\s*\{)")
_POINTER = re.compile(r"((?:const\s+)?\w+)\s*\*\s*(?:__restrict__\s+)?(\w+)")
_LOCAL = re.compile(r"^(\s*)(?:const\s+)?\w+\s+\*(?:__restrict__\s+)?(\w+)\s*=", re.M)
_LOOP = re.compile(r"//[^\n]*|\b(?:for|while)\s*(?=\()")
_KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")


def kernels(source: str) -> list[str]:
    """Return the names of the kernels of a source text.

    >>> kernels('extern "C" __global__ void __launch_bounds__(32) f(int n) {}')
    ['f']
    """
    return _KERNEL.findall(source)


def translate(source: str) -> str:
    """Return CUDA C as the C++ that ``cuda_on_cpu.h`` understands.

    Shared arrays become buffers of exactly their size, new ones for each block. Pointers to global memory become
    ``Global<T>`` and pointers inside a function ``auto``, so that the observing build can put its own in their place;
    in the others ``Global<T>`` is ``T *``. No line moves: a report names the line of the kernel.

    >>> print(translate("__global__ void f(const int *a) { }").splitlines()[0])
    __global__ void f(cuda_on_cpu::Global<const int> a) { }
    """
    sizes: list[str] = []

    def fixed(found: re.Match[str]) -> str:
        sizes.append(f"sizeof({found[1]}) * ({found[3]})")
        return f"auto {found[2]} = cuda_on_cpu::shared<{found[1]}>(cuda_on_cpu::block->fixed[{len(sizes) - 1}]);"

    def head(found: re.Match[str]) -> str:
        new = r"cuda_on_cpu::Global<\1> \2" if found[1] == "__global__" else r"auto \2"
        return f"{found[1]}{found[2]}({_POINTER.sub(new, found[3])})"

    source = DYNAMIC.sub(r"auto \2 = cuda_on_cpu::shared<\1>(cuda_on_cpu::block->dynamic);", source)
    source = _LOCAL.sub(r"\1auto \2 =", _HEAD.sub(head, FIXED.sub(fixed, source)))
    listed = f"static const std::vector<size_t> sizes{{{', '.join(sizes)}}}; return sizes;"
    return f"{source}\ninline const std::vector<size_t> &cuda_on_cpu::fixed_sizes() {{ {listed} }}\n"


def counted(source: str) -> str:
    """Return a source with a ``Loop`` around every loop: the observing build counts their turns.

    >>> counted("for (;;) f();")
    'if (cuda_on_cpu::Loop loop_0{0}; false) {} else for (;;) if (!loop_0.next()) {} else f();'
    """
    out, at = [], 0
    for number, found in enumerate(_LOOP.finditer(source)):
        if found[0].startswith("//"):
            continue
        depth, end = 1, found.end() + 1
        while depth:
            depth += {"(": 1, ")": -1}.get(source[end], 0)
            end += 1
        name = f"loop_{number}"
        out += [source[at : found.start()], f"if (cuda_on_cpu::Loop {name}{{{number}}}; false) {{}} else "]
        out += [source[found.start() : end], f" if (!{name}.next()) {{}} else"]
        at = end
    return "".join(out) + source[at:]


def unit(path: Path, text: str | None = None, observe: bool = False) -> str:
    """Return the whole text that g++ compiles for a kernel file (or for ``text`` in its place)."""
    source = path.read_text() if text is None else text
    source = counted(source) if observe else source
    exports = "\n".join(f"CUDA_ON_CPU_KERNEL({name})" for name in kernels(source))
    opening = '#include "cuda_on_cpu.h"\n#pragma GCC visibility push(default)\n'
    return f'{opening}#line 1 "{path.name}"\n{translate(source)}{exports}\n'


def cache_folder() -> Path:
    """Return the folder that holds compiled kernels: below XDG_CACHE_HOME or ~/.cache, else a temporary one."""
    for place in (Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser(), Path(tempfile.gettempdir())):
        folder = place / f"efcp_ref-{os.getuid()}" / "kernels"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise OSError(f"no folder for compiled kernels can be written: {place}; set XDG_CACHE_HOME")


@cache
def compiler() -> tuple[str, str]:
    """Return the C++ compiler (CXX, else g++) and what it says of its version.

    Raises:
        RuntimeError: there is none.
    """
    name = os.environ.get("CXX") or "g++"
    if not shutil.which(name):
        raise RuntimeError(f"the kernels run on a CPU through {name}, which is not installed: install g++ or set CXX")
    return name, subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout


def store(key: str, stem: str, suffix: str, command: list[str], source: str) -> Path:
    """Return the cached file of this key; make it with ``command`` (source on its standard input) if it is not there.

    The file is made under another name and then renamed: two processes may do so at once.

    Raises:
        RuntimeError: the command failed; the message ends with what it wrote.
    """
    file = cache_folder() / f"{stem}-{key}{suffix}"
    if not file.exists():
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            made = Path(folder) / file.name
            done = subprocess.run([*command, "-o", str(made)], input=source, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{command[0]} failed on {stem}.cu: {done.stderr[-3000:]}")
            os.replace(made, file)
    return file


def library(path: Path, defines: tuple[str, ...] = (), sanitize: str = "", text: str | None = None) -> Path:
    """Return the shared library of a kernel file, compiled at first use.

    Args:
        path: a file of ``kernels/``; ``text``, if given, stands in its place.
        defines: ``("INDEX_BITS=16", ...)``; OBSERVE records every access (not optimised: it compiles in half the time).
        sanitize: "", "address" or "thread"; the process must have the sanitizer's runtime loaded before Python.

    Raises:
        RuntimeError: no compiler, or it failed.

    >>> library(KERNELS / "sp.cu", ("INDEX_BITS=32", "VALUE_BITS=32")).suffix
    '.so'
    """
    name, version = compiler()
    observe = "OBSERVE" in defines
    source = unit(path, text, observe)
    options = [*FLAGS, *SANITIZERS[sanitize], *(f"-D{define}" for define in defines), *(["-O0"] if observe else [])]
    headers = "".join(h.read_text() for h in (FOLDER / "cuda_on_cpu.h", *sorted(path.parent.glob("*.cuh"))))
    key = hashlib.sha256("\0".join([source, headers, name, version, *options]).encode()).hexdigest()[:20]
    command = [name, *options, f"-I{FOLDER}", f"-I{path.parent}", "-x", "c++", "-"]
    return store(key, path.stem, ".so", command, source)
