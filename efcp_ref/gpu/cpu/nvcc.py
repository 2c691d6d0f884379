"""Stands in for nvcc: the "cubin" that it writes is the path of a library of `build`, which ``driver.cpp`` opens.

``EFCP_NVCC`` names a script that runs this module; see ``.ci/pycuda_on_cpu``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from efcp_ref.gpu.cpu import build


def main(arguments: list[str]) -> None:
    """Answer ``--version``, or compile: ``-cubin -DNAME=1 ... -o OUT SOURCE.cu``.

    >>> main(["--version"])
    cuda_on_cpu 1
    """
    if "--version" in arguments:
        print("cuda_on_cpu 1")
        return
    source, out = Path(arguments[-1]), Path(arguments[arguments.index("-o") + 1])
    defines = tuple(a[2:] for a in arguments[:-1] if a.startswith("-D"))
    library = build.library(source.resolve(), defines, os.environ.get("EFCP_CPU_SANITIZE", ""))
    out.write_bytes(os.fsencode(library) + b"\0")


if __name__ == "__main__":
    main(sys.argv[1:])
