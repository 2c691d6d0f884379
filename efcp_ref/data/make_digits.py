"""Write ``digits.npz`` again: ``python -m efcp_ref.data.make_digits [optdigits.tes]``.

Reads the file ``optdigits.tes`` of the UCI repository (65 integers to a line: 64 pixels, then the label),
or, without an argument, the copy of it that scikit-learn bundles. Both give the same arrays in the same order.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from efcp_ref.data.digits import FILE


def rows(argument: str | None) -> np.ndarray:
    """Return the 1797 rows of 65 integers."""
    if argument is not None:
        return np.loadtxt(argument, delimiter=",", dtype=np.uint8)
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.column_stack([pixels, labels]).astype(np.uint8)


def main(argument: str | None = None, file: Path = FILE) -> None:
    """Write pixels and labels as bytes, compressed; nothing in the file needs unpickling."""
    table = rows(argument)
    np.savez_compressed(file, pixels=table[:, :64], labels=table[:, 64])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
