"""Write ``gradients.npy`` again: ``python -m efcp_ref.data.make_gradients``.

Eight consecutive gradients of softmax regression on the digits, as 16-bit integers times 2^-15. They were quantised
once and are committed: a machine whose exp rounds otherwise would now and then write another last digit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from efcp_ref.data import SOFTMAX, recorded_gradients
from efcp_ref.data.quantised import FILE, POWER

STEPS, FIRST, COUNT = 48, 8, 8


def main(file: Path = FILE) -> None:
    """Quantise and write; every value fits 16 bits."""
    g = recorded_gradients(SOFTMAX, STEPS)[FIRST : FIRST + COUNT]
    whole = np.rint(np.ldexp(g, -POWER))
    if np.abs(whole).max() >= 2**15:
        raise ValueError(f"a gradient reaches {np.abs(g).max()}, must be less than 1")
    np.save(file, whole.astype("<i2"), allow_pickle=False)


if __name__ == "__main__":
    main()
