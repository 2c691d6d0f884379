"""The runs behind the claims: which settings, over which seeds, and a file that remembers what is done.

    python -m efcp_ref.claims.heavy  # what is missing, one process, with progress

What the file holds is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from efcp_ref.claims.train import Setting, train

RESULTS = Path(__file__).with_name("results")
FILE = RESULTS / "runs.jsonl"
SEEDS = (0, 1, 2, 3, 4)
TUNING_SEED = 100  # learning rates are chosen on the validation images with a seed that no claim uses
RATE = 1e-2  # of all M-FAC runs on the larger network
MFAC: dict[str, Any] = {"m": 128, "lam": 1e-3}
GGT: dict[str, Any] = {"m": 128, "eps": 1e-5}
Settings = dict[str, Setting]
Records = dict[tuple[str, int], dict[str, Any]]


def _mfac(method: str, feedback: bool = True, sharpness: bool = False, **options: Any) -> Setting:
    return Setting(method, RATE, MFAC | options, feedback, sharpness=sharpness)


def both(name: str, setting: Setting) -> Settings:
    """Return the setting with and without error feedback."""
    return {name: setting, f"{name}, no feedback": replace(setting, feedback=False, sharpness=False)}


def mfac_settings() -> Settings:
    """Return the M-FAC runs, all at one rate and one damping, and Top-k SGD at SGD's rate, by name."""
    return {
        "SGD": Setting("sgd", 1.0, sharpness=True),
        "D-MFAC": _mfac("dense_mfac", sharpness=True),
        **both("S-MFAC 1 %", _mfac("sparse_mfac", density=0.01, sharpness=True)),
        **both("S-MFAC 10 %", _mfac("sparse_mfac", density=0.1, sharpness=True)),
        **both("S-MFAC 0.1 %", _mfac("sparse_mfac", density=0.001, sharpness=True)),
        **both("S-MFAC 5 %", _mfac("sparse_mfac", density=0.05)),
        "S-MFAC 0.5 %": _mfac("sparse_mfac", density=0.005),
        "S-MFAC 0.2 %": _mfac("sparse_mfac", density=0.002),
        **both("Top-1% SGD", Setting("topk_sgd", 1.0, {"density": 0.01})),
        **both("LR-MFAC rank 1", _mfac("low_rank_mfac", rank=1)),
        "Random-1% M-FAC": _mfac("random_mfac", density=0.01),
        **both("S-GGT 1 %", Setting("ggt", 1.0, GGT | {"density": 0.01})),
        "D-GGT": Setting("ggt", 1.0, GGT),
        "LR-MFAC rank 2": _mfac("low_rank_mfac", rank=2),
        "LR-MFAC rank 4": _mfac("low_rank_mfac", rank=4),
        "LR-MFAC rank 8": _mfac("low_rank_mfac", rank=8),
    }


TUNED: dict[str, tuple[str, dict[str, Any], tuple[float, ...]]] = {  # name -> method, options, rates tried
    "SGD with momentum": ("sgdm", {"mu": 0.9}, (0.1, 0.3, 1.0)),
    "AdaGrad": ("adagrad", {}, (0.03, 0.1, 0.3)),
    "AdaGrad 1 %": ("adagrad", {"density": 0.01}, (0.1, 0.3, 1.0)),
    "SignSGD": ("sign_sgd", {}, (1e-3, 3e-3, 1e-2, 3e-2)),
    "Signum": ("signum", {"beta": 0.9}, (1e-3, 3e-3, 1e-2, 3e-2)),
    "EF-SignSGD": ("ef_signsgd", {}, (1.0, 3.0, 10.0)),
}


SIGNS = ("SGD with momentum", "SignSGD", "Signum", "EF-SignSGD")
SOFTMAX_RATES = {  # else those of TUNED
    "SGD with momentum": (0.03, 0.1, 0.3, 1.0, 3.0), "EF-SignSGD": (0.3, 1.0, 3.0, 10.0, 30.0),
    "SignSGD": (1e-3, 3e-3, 1e-2, 3e-2, 0.1), "Signum": (1e-3, 3e-3, 1e-2, 3e-2, 0.1),
}  # fmt: skip


def rates_of(name: str, model: str) -> tuple[float, ...]:
    """Return the learning rates that are tried."""
    return SOFTMAX_RATES.get(name, TUNED[name][2]) if model == "softmax" else TUNED[name][2]


def tuning_settings() -> Settings:
    """Return the runs that choose a learning rate: all of `TUNED` on the MLP, the sign methods on softmax too."""
    pairs = [(name, "mlp") for name in TUNED] + [(name, "softmax") for name in SIGNS]
    return {
        f"{name}, {model}, lr {lr:g}": Setting(*_method(name, lr), model=model)
        for name, model in pairs
        for lr in rates_of(name, model)
    }


def _method(name: str, lr: float) -> tuple[str, float, dict[str, Any]]:
    return TUNED[name][0], lr, TUNED[name][1]


def tuned(name: str, done: Records, model: str = "mlp") -> Setting:
    """Return the setting with the best validation accuracy, the lower loss among equals."""
    tried = [Setting(*_method(name, lr), model=model) for lr in rates_of(name, model)]
    rows = [done[setting.key, TUNING_SEED] for setting in tried]
    order = [(-row["validation"], row["loss"], number) for number, row in enumerate(rows)]
    return tried[min(order)[2]]


def tuned_settings(done: Records) -> Settings:
    """Return the methods of `TUNED` at the rates chosen; AdaGrad 1 % also without feedback."""
    found = {name: tuned(name, done) for name in TUNED}
    found["SGD with momentum"] = replace(found["SGD with momentum"], sharpness=True)
    return found | both("AdaGrad 1 %", found["AdaGrad 1 %"])


BATCHES = (64, 16, 4)
EPOCHS = 10  # of each, 16 steps an epoch at batch 64


def batch_settings(done: Records) -> Settings:
    """Return the sign methods on softmax regression at three batch sizes (the slides' last table).

    As many epochs each, so more steps where the batch is small; the rates chosen at 64 fall in proportion to the batch.
    """
    found: Settings = {}
    for batch in BATCHES:
        for name in SIGNS:
            at_64 = tuned(name, done, "softmax")
            setting = replace(at_64, batch=batch, lr=at_64.lr * batch / 64, steps=EPOCHS * 16 * 64 // batch)
            found[f"{name}, batch {batch}"] = setting
    return found


WINDOWS, WINDOW_RATES = (1, 8, 32, 128), (0.01, 0.1, 1.0)


def window_settings() -> Settings:
    """Return S-MFAC 5 % on softmax regression with windows of four sizes (appendix D, "History size") at three rates.

    And, on the larger network at 1 %, two windows at the one rate that the claims use.

    The first step is m g / (lam m + |g|^2): a smaller window makes shorter steps, which a larger rate makes up for.
    """
    found = {
        f"m = {m}, rate {lr:g}": Setting(
            "sparse_mfac", lr, {"m": m, "lam": 1e-3, "density": 0.05}, model="softmax", steps=320, batch=32
        )
        for m in WINDOWS
        for lr in WINDOW_RATES
    }
    larger = {f"larger network, m = {m}": _mfac("sparse_mfac", density=0.01, m=m) for m in (1, 16)}
    return found | larger


CORNER_M, SMALL_STEPS = 32, 320
SWEEP_LR = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
SWEEP_LAM = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def corner_settings() -> Settings:
    """Return the 49 settings (lr, lam) in which divergence is looked for, both ways; softmax, m = 32."""
    grid: Settings = {}
    for lr in SWEEP_LR:
        for lam in SWEEP_LAM:
            options = {"m": CORNER_M, "lam": lam, "density": 0.01}
            setting = Setting("sparse_mfac", lr, options, model="softmax", steps=SMALL_STEPS, batch=32)
            grid |= both(f"lr {lr:g}, lam {lam:g}", setting)
    return grid


def damping_settings() -> Settings:
    """Return the row of the corner with the largest rate, both ways, for five seeds (appendix D, "Dampening")."""
    return {name: setting for name, setting in corner_settings().items() if setting.lr == SWEEP_LR[-1]}


SIZES, SIZE_EPOCHS, SIZE_RATE = (8, 32, 128, 512), 20, 0.1


def size_settings() -> Settings:
    """Return D- and S-MFAC on softmax regression, four batch sizes, as many epochs each (appendix D, "Batch size")."""
    found: Settings = {}
    for size in SIZES:
        steps = SIZE_EPOCHS * (1078 // size)
        common: dict[str, Any] = {"model": "softmax", "steps": steps, "batch": size}
        for name, method, extra in (("D-MFAC", "dense_mfac", {}), ("S-MFAC 1 %", "sparse_mfac", {"density": 0.01})):
            options = {"m": 32, "lam": 1e-3} | extra
            found[f"{name}, images a step: {size}"] = Setting(method, SIZE_RATE, options, **common)
    return found


GROUPS = ("mfac", "tuning", "tuned", "batch", "corner", "window", "damping", "size")


def settings_of(group: str, done: Records) -> Settings:
    """Return the settings of a group by name; those of "tuned" and "batch" need the records of "tuning"."""
    plain: dict[str, Callable[[], Settings]] = {
        "mfac": mfac_settings, "tuning": tuning_settings, "corner": corner_settings, "window": window_settings,
        "damping": damping_settings, "size": size_settings,
    }  # fmt: skip
    return plain[group]() if group in plain else {"tuned": tuned_settings, "batch": batch_settings}[group](done)


def names_of(group: str) -> frozenset[str]:
    """Return the names of a group, which are known before any run; a run of "tuned" or "batch" needs all of "tuning".

    >>> len(names_of("tuned")), len(names_of("corner"))
    (7, 98)
    """
    known = {
        "tuned": {*TUNED, "AdaGrad 1 %, no feedback"},
        "batch": {f"{name}, batch {batch}" for name in SIGNS for batch in BATCHES},
    }
    return frozenset(known[group] if group in known else settings_of(group, {}))


# ---- the file ----------------------------------------------------------------------------------------------------


def read(file: Path = FILE) -> Records:
    """Return the records by (setting key, seed); a half-written last line is passed over."""
    found: Records = {}
    if file.exists():
        for line in file.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            found[row["key"], row["seed"]] = row
    return found


def append(file: Path, row: dict[str, Any]) -> None:
    """Add one record: one write of one line, then to the disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        out.write(json.dumps(row, sort_keys=True) + "\n")
        out.flush()
        os.fsync(out.fileno())


def seeds_of(group: str) -> tuple[int, ...]:
    """Return the seeds of a group: five for a claim, one for choosing a rate and for the 49 settings of the corner."""
    return {"tuning": (TUNING_SEED,), "corner": SEEDS[:1]}.get(group, SEEDS)


def run(
    groups: Iterable[str] = GROUPS, file: Path = FILE, say: Callable[[str], None] = lambda text: None,
    names: Collection[str] | None = None,
) -> None:
    """Do the runs that the file lacks, all settings of a seed before the next seed; of ``names`` alone if given."""
    done, wanted = read(file), set(names if names is not None else frozenset().union(*map(names_of, groups)))
    if wanted & (names_of("tuned") | names_of("batch")):
        wanted |= names_of("tuning")
    for group in groups:
        if not wanted & names_of(group):
            continue
        settings = {name: setting for name, setting in settings_of(group, done).items() if name in wanted}
        jobs = [(name, setting, seed) for seed in seeds_of(group) for name, setting in settings.items()]
        for number, (name, setting, seed) in enumerate(jobs, start=1):
            if (setting.key, seed) in done:
                continue
            say(f"{group} {number}/{len(jobs)}: {name}, seed {seed}")
            row = {"key": setting.key, "seed": seed, "group": group, "name": name} | train(setting, seed)
            append(file, row)
            done[setting.key, seed] = row
            say(f"    loss {row['loss']:.5f}, accuracy {row['accuracy']:.2f} %, {row['seconds']:.1f} s")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", default=GROUPS)
    parser.add_argument("--file", type=Path, default=FILE)
    given = parser.parse_args()
    run(given.groups, given.file, lambda text: print(time.strftime("%H:%M:%S"), text, flush=True))


if __name__ == "__main__":
    main()
