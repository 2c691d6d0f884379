"""Wrong implementations that do not merely compute wrongly: they hang, abort, print, write where they must not.

This file imports NumPy and SciPy alone and nothing of the project. Each object offers one operation or two: a bad
one, and where it matters a good one that must still be judged.
"""

import os
import sys
import time
from types import SimpleNamespace

import numpy as np
from scipy import sparse


def good_sp(indices, values, g):
    return (values.astype(g.dtype) * g[indices]).sum(axis=1)


def hangs(indices, values, c, d):
    while True:
        time.sleep(0.01)


def spins(indices, values, c, d):
    while True:
        pass


def aborts(indices, values, c, d):
    os.abort()


def exits(indices, values, c, d):
    sys.exit(0)


def leaves(indices, values, c, d):
    os._exit(0)


def raises(indices, values, c, d):
    raise RuntimeError("no kernel image is available")


def eats(indices, values, c, d):
    return np.ones((1 << 40,)) @ np.ones((1 << 40,))


def right_lcg(indices, values, c, d):
    omega = np.zeros(d, c.dtype)
    np.add.at(omega, indices.ravel(), (c[:, None] * values.astype(c.dtype)).ravel())
    return omega


def prints(indices, values, c, d):
    print("EFCP\x00\x00{'omega': 0}" * 3, flush=True)
    sys.stderr.write("warning\n" * 50)
    return right_lcg(indices, values, c, d)


def writes_c(indices, values, c, d):
    omega = right_lcg(indices, values, c, d)
    if c.flags.writeable:
        c *= 0
    return omega


def wrong_shape(indices, values, c, d):
    return right_lcg(indices, values, c, d)[None]


def too_short(indices, values, c, d):
    return right_lcg(indices, values, c, d)[:-1]


def as_text(indices, values, c, d):
    return "omega"


def as_none(indices, values, c, d):
    return None


def as_objects(indices, values, c, d):
    return np.array([object()] * d)


def as_complex(indices, values, c, d):
    return right_lcg(indices, values, c, d) + 0j


def as_integers(indices, values, c, d):
    return right_lcg(indices, values, c, d).astype(np.int64)


def zeros(indices, values, c, d):
    return np.zeros(d, c.dtype)


def stale_buffer(indices, values, c, d, held=np.zeros(1 << 17)):  # noqa: B008
    held[:d] += right_lcg(indices, values, c, d)
    return held[:d].copy()


def nans(indices, values, c, d):
    return np.full(d, np.nan, c.dtype)


def half(indices, values, c, d):
    return right_lcg(indices, values, c, d).astype(np.float16).astype(c.dtype)


def sorts_the_callers_rows(indices, values, g):
    """SciPy shares memory: sorting its matrix sorts the caller's values."""
    m, k = values.shape
    values = values.astype(g.dtype, copy=False)
    rows = sparse.csr_array((values.ravel(), indices.ravel(), np.arange(m + 1) * k), shape=(m, len(g)))
    rows.sort_indices()
    return rows @ g


BAD = (hangs, spins, aborts, exits, leaves, raises, eats, prints, writes_c, wrong_shape, too_short, as_text, as_none,
       as_objects, as_complex, as_integers, zeros, stale_buffer, nans, half)
for _bad in BAD:
    globals()[f"lcg_{_bad.__name__}"] = SimpleNamespace(sp=good_sp, lcg=_bad)
sp_sorts = SimpleNamespace(sp=sorts_the_callers_rows)
