"""Every kernel once in every format, small: what compute-sanitizer watches."""

from itertools import product

import numpy as np

from efcp_ref.gpu import optimizer
from efcp_ref.gpu.device import current
from efcp_ref.gpu.formats import FORMATS
from efcp_ref.gpu.window import LCG, SP, linear_combination, scalar_products

try:
    device = current("cuda")
except (ImportError, RuntimeError) as why:
    raise SystemExit(f"nothing is watched: {why}") from why
for form, order, kernel in product(FORMATS, ("ascending", "bank"), ("textbook", "fast")):
    made = optimizer.sparse_mfac(
        d=3000, m=40, lam=1.0, block_size=800, density=0.05, dtype=form.value, index=form.index, order=order,
        kernel=kernel, device=device,
    )  # fmt: skip
    for seed in range(2):
        made.step(np.random.default_rng(seed).standard_normal(3000).astype(np.float32))
    w = made.window
    x, omega = device.put(np.ones(3000, np.float32)), device.empty((3000,), np.float32)
    for name in SP:
        scalar_products(device, w, x, omega, name)
    for name in LCG:
        linear_combination(device, w, x, omega, name)
    device.synchronize()
print("every kernel ran in every format")
