"""The kernels: which file each is in, what it takes, and what its file claims of registers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "kernels"


@dataclass(frozen=True)
class Kernel:
    """One kernel: its file, its arguments ("i" int, "f" float, "P" pointer), and the occupancy that it claims."""

    file: str
    arguments: str  # "B_d:i g:P": in calling order
    threads: int = 1024  # of a block, at most
    blocks: int = 1  # of that many threads that fit the registers of a multiprocessor
    defines: tuple[str, ...] = ()  # beside those of the format

    @property
    def path(self) -> Path:
        """The source."""
        return FOLDER / self.file

    @property
    def types(self) -> str:
        """One letter per argument, as PyCUDA prepares a kernel.

        >>> KERNELS["sp"].types
        'iiiPPPP'
        """
        return "".join(word.split(":")[1] for word in self.arguments.split())

    @property
    def registers(self) -> int:
        """Registers of a thread that its occupancy leaves: 65,536 in all, in steps of eight, 255 at most.

        >>> KERNELS["sp"].registers, KERNELS["lcg"].registers
        (32, 64)
        """
        return min(255, 65536 // (self.threads * self.blocks) // 8 * 8)


_WINDOW = "I:P V:P omega:P"
_SLICES = "B_d:i B_k:i d:i m:i k:i"

KERNELS: dict[str, Kernel] = {
    "sp": Kernel("sp.cu", f"B_d:i B_k:i k:i g:P {_WINDOW}", 1024, 2),
    "sp_warps": Kernel("sp_warps.cu", f"B_d:i B_k:i m:i k:i g:P {_WINDOW}"),
    "sp_slices": Kernel("sp_slices.cu", f"{_SLICES} g:P I:P V:P partial:P"),
    "sp_sum": Kernel("sp_slices.cu", "n_Bd:i m:i partial:P omega:P", 32, 32),
    "lcg": Kernel("lcg.cu", f"{_SLICES} c:P {_WINDOW}"),
    "lcg_global": Kernel("lcg_global.cu", f"{_SLICES} c:P {_WINDOW}"),
    "lcg_rows": Kernel("lcg_rows.cu", f"{_SLICES} c:P {_WINDOW}", defines=("THREADS=1024", "ROWS=8")),
    "lcg_rows_128": Kernel("lcg_rows.cu", f"{_SLICES} c:P {_WINDOW}", 128, 3, ("THREADS=128", "ROWS=16")),
    "lcg_warp": Kernel("lcg_warp.cu", f"{_SLICES} c:P {_WINDOW}", 32, 17),
    "feedback": Kernel("feedback.cu", "B_d:i B_k:i d:i k:i bank_ordered:i g:P xi:P x:P I:P V:P"),
    "place_row": Kernel("mfac.cu", "m:i row:i h:P S:P", 1024, 2),
    "direction": Kernel("mfac.cu", "d:i lam:f x:P omega:P u:P", 1024, 2),
    "scatter": Kernel("mfac.cu", "B_d:i B_k:i k:i I:P V:P x:P", 1024, 2),
    "damp": Kernel("cholesky.cu", "m:i shift:f S:P M:P"),
    "cholesky_panel": Kernel("cholesky.cu", "m:i first:i shift:f M:P D:P"),
    "cholesky_trail": Kernel("cholesky.cu", "m:i first:i tiles:i M:P"),
    "cholesky_solve": Kernel("cholesky.cu", "m:i lam:f M:P D:P h:P c:P"),
}


def entry(name: str) -> str:
    """Return the name of the kernel's function: variants of one file share it.

    >>> entry("lcg_rows_128"), entry("sp")
    ('lcg_rows', 'sp')
    """
    return name.removesuffix("_128")
