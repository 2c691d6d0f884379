"""Build the stand-in for NVIDIA's driver, ``libcuda.so.1``, for a PyCUDA that is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from efcp_ref.gpu.cpu.build import FOLDER, compiler


def missing(extension: Path) -> list[str]:
    """Return the names of the driver's interface that PyCUDA's extension needs to be there at all."""
    listed = subprocess.run(["nm", "-D", str(extension)], capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(r"\bU (cu[A-Z]\w*)", listed)))


def make(extension: Path, folder: Path) -> Path:
    """Write ``libcuda.so.1`` into a folder (for LD_LIBRARY_PATH), and ``nvcc`` (for EFCP_NVCC) beside it.

    Args:
        extension: PyCUDA's ``_driver*.so``; names that the stand-in does not have return "not supported".
        folder: made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rest, library = folder / "rest.cpp", folder / "libcuda.so.1"
    rest.write_text(
        "".join(f'extern "C" __attribute__((weak)) int {name}() {{ return 801; }}\n' for name in missing(extension))
    )
    options = ["-std=c++20", "-O1", "-g", "-w", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    weak, made = folder / "rest.o", [compiler()[0], *options, str(FOLDER / "driver.cpp")]
    subprocess.run([compiler()[0], "-c", "-fPIC", "-w", str(rest), "-o", str(weak)], check=True)
    subprocess.run([*made, str(weak), "-ldl", "-o", str(library)], check=True)
    nvcc = folder / "nvcc"
    nvcc.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m efcp_ref.gpu.cpu.nvcc "$@"\n')
    nvcc.chmod(0o755)
    return library


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), Path(sys.argv[2])))
