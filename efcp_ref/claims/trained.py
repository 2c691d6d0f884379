"""Claims about training, read from the cached runs of `efcp_ref.claims.heavy` and `efcp_ref.claims.comparators`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from efcp_ref.claims import comparators, figures, heavy
from efcp_ref.claims.core import HOLDS, PART, UNTESTABLE, Claim, Condition, Measured, register, small, spread
from efcp_ref.data import MLP, SOFTMAX, recorded_gradients, split
from efcp_ref.paper.theory import dense_window, density_of_rank, saving, sparse_mfac, total
from efcp_ref.paper.woodbury import mfac_direction

EQUAL = 0.5  # points of accuracy within which two methods are called equal
FEEDBACK = (
    "S-MFAC 10 %",
    "S-MFAC 5 %",
    "S-MFAC 1 %",
    "S-MFAC 0.1 %",
    "LR-MFAC rank 1",
    "S-GGT 1 %",
    "AdaGrad 1 %",
    "Top-1% SGD",
)
Row = dict[str, Any]


_runs = [heavy.FILE]  # the file that is read
_noted: set[str] = set()  # names that were read


class _Noting(dict[str, list[Row]]):
    """Runs by name, which notes what is read."""

    def __getitem__(self, name: str) -> list[Row]:
        _noted.add(name)
        return super().__getitem__(name)


def needed(claim: Claim) -> frozenset[str]:
    """Return the names of the runs that a claim reads.

    >>> from efcp_ref.claims.core import CLAIMS
    >>> sorted(needed(CLAIMS["sparse-ggt"]))
    ['D-GGT', 'S-GGT 1 %', 'S-GGT 1 %, no feedback']
    """
    records()
    _noted.clear()
    claim.measure(heavy.SEEDS)
    return frozenset(_noted)


def use(file: Path) -> None:
    """Read the runs from another file from now on."""
    _runs[0] = file
    records.cache_clear()


@lru_cache(maxsize=1)
def records() -> dict[str, list[Row]]:
    """Return all cached runs by name, seeds in order; a corner setting's name starts with "lr"."""
    found: dict[str, list[Row]] = {}
    for row in heavy.read(_runs[0]).values():
        if row["group"] != "tuning":
            found.setdefault(row["name"], []).append(row)
    done = heavy.read(comparators.FILE)
    chosen = {comparators.key(name, *comparators.chosen(name, done)) for name in comparators.complete(done)}
    for row in done.values():
        if row["seed"] != heavy.TUNING_SEED and row["key"] in chosen:
            found.setdefault(f"{row['name']} ({row['package']})", []).append(row)
    return _Noting({name: sorted(rows, key=lambda row: row["seed"]) for name, rows in found.items()})


def column(name: str, what: str, seeds: Sequence[int] = heavy.SEEDS) -> list[float]:
    """Return one number of every seed of a setting."""
    return [row[what] for row in records()[name] if row["seed"] in seeds]


def loss(name: str, seeds: Sequence[int] = heavy.SEEDS) -> float:
    """Return the median training loss."""
    return median(column(name, "loss", seeds))


def accuracy(name: str, seeds: Sequence[int] = heavy.SEEDS) -> float:
    """Return the mean test accuracy, per cent."""
    return mean(column(name, "accuracy", seeds))


def shown(name: str) -> tuple[str, str, str]:
    """Return the row of a table: name, loss and accuracy with their spread."""
    return name, small(column(name, "loss")), spread(column(name, "accuracy"))


COLUMNS = ("method", "training loss, median (least to largest)", "test accuracy %, median (least to largest)")


def bytes_saved(density: float = 0.01) -> float:
    """Return how many times less Sparse M-FAC holds than the dense window, for this network, m = 128."""
    sparse = total(sparse_mfac(128, MLP.d, density, practical=True, block_size=2048))
    return saving(total(dense_window(128, MLP.d)), sparse)


def _recovers(seeds: Sequence[int]) -> Measured:
    names = ("D-MFAC", "S-MFAC 10 %", "S-MFAC 5 %", "S-MFAC 1 %", "SGD")
    gap = accuracy("D-MFAC", seeds) - accuracy("S-MFAC 1 %", seeds)
    return Measured(
        COLUMNS,
        tuple(map(shown, names)),
        (
            Condition(
                "training loss of S-MFAC 1 % <= 2 x that of D-MFAC",
                loss("S-MFAC 1 %", seeds),
                2 * loss("D-MFAC", seeds),
            ),
            Condition(f"accuracy of S-MFAC 1 % at most {EQUAL} points below D-MFAC", gap, EQUAL),
            Condition("bytes held: 20 x less", 20.0, bytes_saved()),
        ),
        {"curves": {name: curve(name) for name in names}, "say": {"rate": heavy.RATE, **heavy.MFAC}},
    )


def curve(name: str) -> tuple[list[float], list[float]]:
    """Return the steps, and the median training loss of all seeds at each."""
    rows = records()[name]
    return [t for t, _ in rows[0]["curve"]], [
        median(values) for values in zip(*([v for _, v in r["curve"]] for r in rows), strict=True)
    ]


def _loss_curves(measured: Measured) -> Any:
    return figures.lines(measured.data["curves"], "step", "training loss (median of the seeds)", yscale="log")


register(
    Claim(
        "sparse-recovers-dense",
        "Sparse M-FAC at 1 % recovers Dense M-FAC",
        "this approach can compress full-matrix preconditioners to up to 99% sparsity without accuracy loss",
        "efcp.txt, line 13; Figure 2",
        HOLDS,
        _recovers,
        "One setting for all (rate {rate:g}, damping {lam:g}, m = {m}). Digits is easy: the accuracies are equal "
        "within their spread, so the training loss is what tells the methods apart.",
        _loss_curves,
        "Training loss against steps, five curves on a logarithmic axis: the three sparse M-FAC curves end at or "
        "below the dense one, all far below SGD.",
        True,
    )
)


def _feedback(seeds: Sequence[int]) -> Measured:
    pairs = [(name, f"{name}, no feedback") for name in FEEDBACK]
    rows = [shown(name) for pair in pairs for name in pair]
    conditions = [
        Condition(f"{name}: training loss with feedback <= without", loss(name, seeds), loss(without, seeds))
        for name, without in pairs
    ]
    lost = accuracy("S-MFAC 1 %", seeds) - accuracy("S-MFAC 1 %, no feedback", seeds)
    conditions.append(Condition("S-MFAC 1 %: at least 1 point of accuracy is lost without feedback", 1.0, lost))
    data = {name: column(name, "loss") for pair in pairs for name in pair}
    return Measured(COLUMNS, tuple(rows), tuple(conditions), {"dots": data})


def _dots(measured: Measured) -> Any:
    return figures.dots(measured.data["dots"], "training loss, one dot a seed, bar: median")


register(
    Claim(
        "feedback-makes-it-work",
        "Error feedback is what makes it work",
        "the sizable error in the preconditioner induced by gradient sparsification or low-rank projection can in "
        "fact be handled via an error feedback mechanism applied to the gradients before they are stored",
        "efcp.txt, line 31",
        HOLDS,
        _feedback,
        "The same settings with the error dropped after every step. The sparser the window, the more the error is "
        "worth.",
        _dots,
        "Dots of the training loss, with and without error feedback, for eight methods: without it every method ends "
        "higher, up to about ten times.",
        True,
    )
)


def _diverges(seeds: Sequence[int]) -> Measured:
    grid = heavy.corner_settings()
    rows = {name: records()[name][0] for name in grid}
    without = [name for name in grid if rows[name]["diverged"] and name.endswith("no feedback")]
    having = [name for name in grid if rows[name]["diverged"] and not name.endswith("no feedback")]
    worse = sum(
        rows[f"{name}, no feedback"]["loss"] > rows[name]["loss"]
        for name in grid
        if name in rows and "no f" not in name
    )
    table = np.array([[_state(rows, lr, lam) for lam in heavy.SWEEP_LAM] for lr in heavy.SWEEP_LR])
    five = {name: sum(row["diverged"] for row in records()[name]) for name in heavy.damping_settings()}
    lost = {end: sum(n for name, n in five.items() if name.endswith("feedback") == end) for end in (True, False)}
    return Measured(
        ("of 49 settings (rate, damping)", "count"),
        (
            ("diverge without feedback", len(without)),
            ("diverge with feedback", len(having)),
            ("end with a higher loss without feedback", worse),
            ("of 35 runs at the largest rate, five seeds: diverge without feedback", lost[True]),
            ("of the same 35 runs: diverge with feedback", lost[False]),
        ),
        (
            Condition("some setting diverges without feedback: 1 <= count", 1.0, float(len(without))),
            Condition("most settings diverge without feedback: 25 <= count", 25.0, float(len(without))),
            Condition("at the largest rate, five seeds: at least twice as many without as with it", 2.0 * lost[False],
                      float(lost[True])),
        ),
        {"table": table, "say": {"worse": worse, "all": len(grid) // 2, "m": heavy.CORNER_M, "T": heavy.SMALL_STEPS}},
    )


def _state(rows: dict[str, Row], lr: float, lam: float) -> int:
    name = f"lr {lr:g}, lam {lam:g}"
    return int(rows[name]["diverged"]) + 2 * int(rows[f"{name}, no feedback"]["diverged"])


def _grid(measured: Measured) -> Any:
    from matplotlib.colors import ListedColormap

    figure, ax = figures.axes(6.0, 3.8)
    ax.grid(False)
    colours = ListedColormap([figures.PAPER, figures.COLOURS[4], figures.COLOURS[1], figures.COLOURS[6]])
    ax.imshow(measured.data["table"], cmap=colours, vmin=0, vmax=3, aspect="auto")
    words = ("neither", "with", "without", "both")
    colour = (figures.COLOURS[5], "white", "black", "white")
    for (i, j), state in np.ndenumerate(measured.data["table"]):
        ax.text(j, i, words[state], ha="center", va="center", fontsize=10, color=colour[state])
    ax.set_xticks(range(7), [f"{lam:g}" for lam in heavy.SWEEP_LAM])
    ax.set_yticks(range(7), [f"{lr:g}" for lr in heavy.SWEEP_LR])
    ax.set_title("which run exceeds a loss of 10: with feedback, without, both, neither", fontsize=10)
    return figures.finished(figure, ax, "damping", "learning rate")


register(
    Claim(
        "diverges-without",
        "Without error feedback, training diverges",
        "doing so directly by projecting the gradients onto a sparse or low-rank support diverges",
        "efcp.txt, line 122",
        PART,
        _diverges,
        "Softmax regression, S-MFAC at 1 %, m = {m}, {T} steps, one seed for each of {all} settings, five at the "
        "largest rate. Diverged: the loss exceeded 10 or was not finite. Without feedback it diverges in a corner "
        "only, and there now and then with it, too. In {worse} of the {all} settings it ends with a higher loss.",
        _grid,
        "Grid of seven rates by seven dampings: divergence fills only the corner of large rates and small dampings, "
        "the rest is empty.",
        True,
    )
)


def _metric(seeds: Sequence[int]) -> Measured:
    rows = [row for row in records()["S-MFAC 1 %"] if row["seed"] in seeds]
    curves = np.array([row["metric"] for row in rows])  # (seeds, 160), every fourth step
    steps = 1 + 4 * np.arange(curves.shape[1])
    middle = np.median(curves, axis=0)
    early = slice(8, 100)  # steps 33 to 397: after the first fill, before the floor
    exponential = _fit(steps[early], np.log(middle[early]))
    hyperbolic = _fit(np.log(steps[early]), np.log(middle[early]))
    ends = curves[:, -1] / curves[:, 8]
    return Measured(
        ("", "value"),
        (
            ("metric at step 33, median (least to largest)", small(curves[:, 8].tolist())),
            ("metric at the last step", small(curves[:, -1].tolist())),
            ("misfit of exp(a + b t), steps 33 to 397, of ln metric", round(exponential, 3)),
            ("misfit of a t^b", round(hyperbolic, 3)),
        ),
        (
            Condition("in every seed the metric falls 10 times between step 33 and the end", float(ends.max()), 0.1),
            Condition("an exponential fits better than a power of t up to step 397", exponential, hyperbolic),
            Condition("it goes on falling 10 times in the last 160 steps", 10.0, float(middle[-41] / middle[-1])),
        ),
        {
            "curves": {
                "median of the seeds": (steps.tolist(), middle.tolist()),
                "|xi| / t of a constant error": (steps.tolist(), (middle[8] * steps[8] / steps).tolist()),
            }
        },
    )


def _fit(x: Any, y: Any) -> float:
    """Return the root mean square distance of y from the best straight line in x."""
    return float(np.std(y - np.polyval(np.polyfit(x, y, 1), x)))


def _metric_figure(measured: Measured) -> Any:
    return figures.lines(measured.data["curves"], "step", "|xi_t| / (|g_1| + ... + |g_t|)", yscale="log")


register(
    Claim(
        "metric-decays",
        "The error-feedback metric decreases exponentially",
        "in both experiments this metric decreases exponentially, which indicates the accumulated gradient "
        "information is indeed transferred from the error feedback",
        "efcp.txt, line 273; appendix A",
        PART,
        _metric,
        "It falls about as an exponential until the gradients are small, then reaches a floor of noise. A metric "
        "that divides by a sum over all steps falls like 1/t even for an error of constant norm (R30): the dashed "
        "line of that kind is drawn for comparison.",
        _metric_figure,
        "The metric on a logarithmic axis against steps: nearly a straight line down over three decades, then flat; "
        "a second line shows 1/t, which falls much less.",
        True,
    )
)

DENSITIES = {
    "S-MFAC 0.1 %": 0.1,
    "S-MFAC 0.2 %": 0.2,
    "S-MFAC 0.5 %": 0.5,
    "S-MFAC 1 %": 1,
    "S-MFAC 5 %": 5,
    "S-MFAC 10 %": 10,
    "D-MFAC": 100,
}


def _threshold(seeds: Sequence[int]) -> Measured:
    return Measured(
        COLUMNS,
        tuple(map(shown, DENSITIES)),
        (
            Condition(
                "above the threshold all the same: loss at 1 % <= 1.5 x loss at 10 %",
                loss("S-MFAC 1 %", seeds),
                1.5 * loss("S-MFAC 10 %", seeds),
            ),
            Condition(
                "and loss at 0.5 % <= 1.5 x loss at 10 %", loss("S-MFAC 0.5 %", seeds), 1.5 * loss("S-MFAC 10 %", seeds)
            ),
            Condition(
                "below it worse: 2 x loss at 1 % <= loss at 0.1 %",
                2 * loss("S-MFAC 1 %", seeds),
                loss("S-MFAC 0.1 %", seeds),
            ),
        ),
        {
            "say": {"entries": -(-2048 * 5 // 1000)},
            "points": {name: (density, column(name, "loss")) for name, density in DENSITIES.items()},
        },
    )


def _threshold_figure(measured: Measured) -> Any:
    figure, ax = figures.axes()
    points = measured.data["points"].values()
    for density, values in points:
        ax.plot([density] * len(values), values, "o", color=figures.COLOURS[0], markersize=5, alpha=0.75)
    ax.plot([d for d, _ in points], [median(v) for _, v in points], "-", color=figures.COLOURS[1])
    return figures.finished(figure, ax, "density k in % (100: dense)", "training loss", "log", "log")


register(
    Claim(
        "density-threshold",
        "There is a density above which more density gains nothing",
        "there is always a natural density percentage threshold k* above which using higher density yields the same "
        "results",
        "efcp.txt, lines 432 and 277; Figure 2",
        HOLDS,
        _threshold,
        "Here it lies below 0.5 %, {entries} entries of each block of 2,048. As in Figure 2, the densest window is "
        "not the best one.",
        _threshold_figure,
        "Training loss against density on logarithmic axes: it falls steeply up to half a per cent and is flat from "
        "there to 100 per cent.",
        True,
    )
)

SHARP = ("SGD", "SGD with momentum", "D-MFAC", "S-MFAC 10 %", "S-MFAC 1 %", "S-MFAC 0.1 %")


def sharp(name: str, where: str, seeds: Sequence[int] = heavy.SEEDS) -> list[float]:
    """Return the largest Hessian eigenvalue of every seed, at the end ("train", "test") or at "equal_loss"."""
    values = [row["sharpness"][where] for row in records()[name] if row["seed"] in seeds and "sharpness" in row]
    return [value for value in values if value is not None]


def _flat(seeds: Sequence[int]) -> Measured:
    columns = ("method", "end, training images", "end, test images", "where the training loss passes 0.02")
    rows = tuple((name, *(spread(sharp(name, where)) for where in ("train", "test", "equal_loss"))) for name in SHARP)
    end, same = ({name: median(sharp(name, where, seeds)) for name in SHARP} for where in ("train", "equal_loss"))
    momentum = "SGD with momentum"
    conditions = (
        Condition("at the end S-MFAC 1 % <= half of SGD", end["S-MFAC 1 %"], 0.5 * end["SGD"]),
        Condition("at the end D-MFAC <= half of SGD", end["D-MFAC"], 0.5 * end["SGD"]),
        Condition("S-MFAC 1 % <= 1.5 x D-MFAC", end["S-MFAC 1 %"], 1.5 * end["D-MFAC"]),
        Condition("at equal training loss D-MFAC <= SGD with momentum", same["D-MFAC"], same[momentum]),
        Condition("at the end D-MFAC <= a quarter of SGD with momentum", end["D-MFAC"], 0.25 * end[momentum]),
    )
    pairs = [
        (name, words, where) for name in SHARP for words, where in (("end", "train"), ("equal loss", "equal_loss"))
    ]
    dots = {f"{name}, {words}": sharp(name, where) for name, words, where in pairs}
    times = f"{loss('SGD', seeds) / loss('D-MFAC', seeds):.0f}"
    return Measured(columns, rows, conditions, {"say": {"times": times}, "dots": dots})


def _sharp_figure(measured: Measured) -> Any:
    return figures.dots(measured.data["dots"], "largest Hessian eigenvalue, training images")


register(
    Claim(
        "flatter-minima",
        "M-FAC finds flatter minima than SGD",
        "D-MFAC and S-MFAC yield much flatter solutions that SGD and S-MFAC yields only slightly larger maximum "
        "eigenvalues compared to D-MFAC",
        "efcp.txt, line 275; appendix B, Table 4",
        PART,
        _flat,
        "At the end of training it is so. But the loss of M-FAC is then {times} times lower, and the curvature of a "
        "cross-entropy fades with the loss: SGD with momentum, which also fits better, comes close, and where all "
        "methods have the same training loss the order is another. Largest eigenvalue by Lanczos on complex-step "
        "Hessian-vector products.",
        _sharp_figure,
        "Dots of the largest Hessian eigenvalue per method, at the end of training and at equal training loss: at "
        "the end M-FAC is lowest, at equal loss it is not.",
        True,
    )
)


def _better(seeds: Sequence[int]) -> Measured:
    names = ("SGD", "SGD with momentum", "D-MFAC", "S-MFAC 1 %")
    return Measured(
        COLUMNS,
        tuple(map(shown, names)),
        (),
        {"say": {"images": len(split().test) / 100}, "dots": {name: column(name, "accuracy") for name in names}},
    )


register(
    Claim(
        "better-than-sgd",
        "Sparse M-FAC generalises better than SGD",
        "Sparse MFAC outperforms the well-tuned SGD baseline by approximately 1% Top-1 test accuracy",
        "efcp.txt, line 37; Figure 1, Table 10",
        UNTESTABLE,
        _better,
        "One point is {images:.1f} of the test images, and all good methods lie within the spread of the seeds. What "
        "would be needed: ResNet-18 on ImageNet, 88 epochs (an A100 for 4 h 20 min a run, efcp.txt line 257).",
        lambda measured: figures.dots(measured.data["dots"], "test accuracy, per cent", xscale="linear"),
        "Dots of the test accuracy of four methods, overlapping between 98 and 99.5 per cent.",
        True,
    )
)

RANKS = ("LR-MFAC rank 1", "LR-MFAC rank 2", "LR-MFAC rank 4", "LR-MFAC rank 8")


def _rank(seeds: Sequence[int]) -> Measured:
    gap = max(accuracy(name, seeds) for name in RANKS) - accuracy("LR-MFAC rank 1", seeds)
    return Measured(
        COLUMNS,
        tuple(map(shown, (*RANKS, "D-MFAC"))),
        (
            Condition("accuracy at rank 1 at most 0.5 points below the best rank", gap, EQUAL),
            Condition(
                "training loss at rank 1 <= 2 x that of rank 8",
                loss("LR-MFAC rank 1", seeds),
                2 * loss("LR-MFAC rank 8", seeds),
            ),
            Condition(
                "training loss at rank 1 <= 2 x that of D-MFAC",
                loss("LR-MFAC rank 1", seeds),
                2 * loss("D-MFAC", seeds),
            ),
        ),
        {"dots": {name: column(name, "loss") for name in (*RANKS, "D-MFAC")}},
    )


register(
    Claim(
        "rank-ablation",
        "The rank barely matters, even rank 1 is enough",
        "the decomposition rank significantly affects smaller BERT models but barely influences BERT-BASE and RN-20 "
        "model results",
        "efcp.txt, line 713; Table 11",
        HOLDS,
        _rank,
        "At this scale the half that says barely: two weight matrices, 64 x 256 and 256 x 10. The half about "
        "BERT-Tiny needs BERT and is not testable here.",
        _dots,
        "Dots of the training loss for ranks 1, 2, 4, 8 and the dense window: all within a factor of two.",
        True,
    )
)


def _rank_density(seeds: Sequence[int]) -> Measured:
    equal = 100 * float(density_of_rank(list(MLP.shapes), 1))
    names = ("LR-MFAC rank 1", "S-MFAC 1 %", "S-MFAC 0.5 %")
    return Measured(
        COLUMNS,
        tuple(map(shown, names)),
        (
            Condition("density of equal size for rank 1 on this network, per cent: more than 1", 1.0, equal),
            Condition(
                "training loss of S-MFAC 1 % <= that of rank 1",
                loss("S-MFAC 1 %", seeds),
                loss("LR-MFAC rank 1", seeds),
            ),
        ),
        {"dots": {name: column(name, "loss") for name in names}, "say": {"equal": equal}},
    )


register(
    Claim(
        "rank-against-density",
        "At less memory, sparsity does as well as low rank",
        "we can reach good results using 1%, which results in a lower memory footprint than LR-MFAC",
        "efcp.txt, line 733; appendix J, Table 12",
        HOLDS,
        _rank_density,
        "Rank 1 stores as many numbers as a density of {equal:.2f} % on this network (appendix J's formula); "
        "counting the bytes of the indices halves that (R42), and 1 % is still less.",
        _dots,
        "Dots of the training loss: Sparse M-FAC at 1 and 0.5 per cent lie below low rank 1.",
        True,
    )
)


def _direction(seeds: Sequence[int]) -> Measured:
    names = ("S-MFAC 0.1 %", "S-MFAC 0.2 %", "S-MFAC 0.5 %", "S-MFAC 1 %", "S-MFAC 5 %", "S-MFAC 10 %")
    data = {name: [100 * v for v in column(name, "density")] for name in names}
    kept = {name: DENSITIES[name] for name in names}
    return Measured(
        ("method", "nonzero entries of u in the last 32 steps, %"),
        tuple((n, spread(v, 1)) for n, v in data.items()),
        (
            Condition(
                "S-MFAC 1 %: u is at least 20 times denser than c", 20 * kept["S-MFAC 1 %"], median(data["S-MFAC 1 %"])
            ),
            Condition(
                "S-MFAC 0.1 %: u is at least 5 times denser than c",
                5 * kept["S-MFAC 0.1 %"],
                median(data["S-MFAC 0.1 %"]),
            ),
        ),
        {"dots": data, "say": {"share": median(data["S-MFAC 1 %"])}},
    )


register(
    Claim(
        "direction-not-sparse",
        "The preconditioned gradients are not necessarily very sparse",
        "the resulting preconditioned gradients are not necessarily very sparse",
        "efcp.txt, line 199",
        PART,
        _direction,
        "u combines the whole window, so it is as wide as the union of their supports: {share:.0f} % of all "
        "coordinates at 1 %. At 0.1 % the same few coordinates come back again and again late in training, and u "
        "stays almost as sparse as c.",
        lambda measured: figures.dots(measured.data["dots"], "nonzero entries of u, per cent"),
        "Dots of the share of nonzero entries of the direction: more than half at densities of 1 per cent and more, "
        "next to nothing at 0.1 per cent.",
        True,
    )
)

SIGNS, BATCHES = heavy.SIGNS, heavy.BATCHES


def _named(name: str, batch: int) -> str:
    return f"{name}, batch {batch}"


def _batch(seeds: Sequence[int]) -> Measured:
    best = {batch: max(accuracy(_named(name, batch), seeds) for name in SIGNS) for batch in BATCHES}
    down = {(name, batch): best[batch] - accuracy(_named(name, batch), seeds) for name in SIGNS for batch in BATCHES}
    rows = tuple((name, *(spread(column(_named(name, batch), "accuracy")) for batch in BATCHES)) for name in SIGNS)
    return Measured(
        ("method", *(f"test accuracy %, batch {batch}" for batch in BATCHES)),
        rows,
        (
            Condition(
                "batch 4: SignSGD at least 1 point behind EF-SignSGD", 1.0, down["SignSGD", 4] - down["EF-SignSGD", 4]
            ),
            Condition("batch 4: EF-SignSGD within 1 point of the best", down["EF-SignSGD", 4], 1.0),
            Condition("SignSGD falls further behind from batch 64 to 4", down["SignSGD", 64], down["SignSGD", 4]),
            Condition(
                "batch 64: SignSGD at least 0.5 points behind EF-SignSGD",
                0.5,
                down["SignSGD", 64] - down["EF-SignSGD", 64],
            ),
        ),
        {
            "curves": {name: (list(BATCHES), [accuracy(_named(name, b), seeds) for b in BATCHES]) for name in SIGNS},
            "say": {
                "first": BATCHES[0],
                "last": BATCHES[-1],
                "epochs": heavy.EPOCHS,
                "more": BATCHES[0] // BATCHES[-1],
            },
        },
    )


register(
    Claim(
        "batch-size",
        "SignSGD suffers from small batches, EF-SignSGD does not",
        "SIGNSGD performs poorly for small batch-sizes. The performance of SIGNSGD is always worse than EF-SIGNSGD",
        "ef-signsgd-slides.txt, lines 264 and 265; Figure 4",
        HOLDS,
        _batch,
        "Softmax regression. Rates chosen at batch {first} on the validation images and scaled with the batch; "
        "{epochs} epochs for each, so {more} times the steps at batch {last}.",
        lambda measured: figures.lines(
            measured.data["curves"], "images in a minibatch", "mean test accuracy, per cent"
        ),
        "Mean test accuracy against batch size: SignSGD falls as the batch shrinks, the other three stay level.",
        True,
        "The larger network at batch 64 and 8. The rates must fall with the batch: kept as they were, SGD with "
        "momentum and EF-SignSGD broke down at batch 4 there, and SignSGD did not.",
    )
)


def table_names() -> list[str]:
    """Return the methods of the large table that have been run."""
    wanted = [
        "SGD",
        "SGD with momentum",
        "SignSGD",
        "Signum",
        "EF-SignSGD",
        "AdaGrad",
        "AdaGrad 1 %",
        "Top-1% SGD",
        *(f"{name} ({package})" for name, package in comparators.PACKAGES.items()),
        "D-MFAC",
        "S-MFAC 10 %",
        "S-MFAC 1 %",
        "LR-MFAC rank 1",
        "D-GGT",
        "S-GGT 1 %",
        "Random-1% M-FAC",
    ]
    return [name for name in wanted if name in records()]


def _competitive(seeds: Sequence[int]) -> Measured:
    names = table_names()
    others = [name for name in names if "M-FAC" not in name and "MFAC" not in name]
    gap = max(accuracy(name, seeds) for name in others) - accuracy("S-MFAC 1 %", seeds)
    return Measured(
        COLUMNS,
        tuple(map(shown, names)),
        (
            Condition(
                "accuracy of S-MFAC 1 % at most 0.5 points below the best other method",
                gap,
                EQUAL,
            ),
            Condition(
                "Top-1% and not random-1%: 10 x its training loss <= that of random-k",
                10 * loss("S-MFAC 1 %", seeds),
                loss("Random-1% M-FAC", seeds),
            ),
        ),
        {"dots": {name: column(name, "loss") for name in names}, "say": {"settings": _chosen()}},
    )


def _chosen() -> str:
    done = heavy.read(comparators.FILE)
    return "; ".join(comparators.key(name, *comparators.chosen(name, done)) for name in comparators.complete(done))


register(
    Claim(
        "competitive",
        "Sparse M-FAC is competitive with the other optimizers",
        "S-MFAC is competitive with other preconditioned gradient methods, outperforming SGD, AdamW, K-FAC and SENG",
        "efcp.txt, line 184; Table 1",
        HOLDS,
        _competitive,
        "Competitive: yes. Outperforming: not testable here, the accuracies saturate. Every method's rate was chosen "
        "on the validation images: of three to five for the methods without a damping, of nine pairs of rate and "
        "damping for Shampoo, K-FAC and SENG. Those of M-FAC and GGT were fixed in trial runs on this data. Adam and "
        "AdamW are PyTorch's, Shampoo is pytorch-optimizer's (inverse roots every 10 steps, as in appendix C), K-FAC "
        "and SENG are asdfghjkl's, the library of the paper's own benchmark (Table 1). The names "
        + ", ".join(comparators.NOT_HAD)
        + f" are not on PyPI (looked up on 2026-11-22). Chosen: {{settings}}. For these runs: `{comparators.INSTALL}`.",
        _dots,
        "Dots of the training loss of all methods on one logarithmic axis.",
        True,
    )
)


def _ggt(seeds: Sequence[int]) -> Measured:
    names = ("D-GGT", "S-GGT 1 %", "S-GGT 1 %, no feedback")
    gap = accuracy("D-GGT", seeds) - accuracy("S-GGT 1 %", seeds)
    return Measured(
        COLUMNS,
        tuple(map(shown, names)),
        (
            Condition("accuracy of S-GGT 1 % at most 0.5 points below D-GGT", gap, EQUAL),
            Condition(
                "training loss of S-GGT 1 % <= a tenth of that without feedback",
                loss("S-GGT 1 %", seeds),
                0.1 * loss("S-GGT 1 %, no feedback", seeds),
            ),
        ),
        {
            "dots": {name: column(name, "loss") for name in names},
            "say": {"ratio": f"{loss('S-GGT 1 %', seeds) / loss('D-GGT', seeds):.1f}"},
        },
    )


register(
    Claim(
        "sparse-ggt",
        "Sparse GGT reaches what Dense GGT reaches",
        "D-GGT 87.77 (.22), S-GGT 87.73 (.34)",
        "efcp.txt, line 629; Table 10",
        HOLDS,
        _ggt,
        "Accuracy is equal. The training loss of the dense one is {ratio} times lower, at a level that no accuracy "
        "shows.",
        _dots,
        "Dots of the training loss of dense and sparse GGT and of sparse GGT without feedback.",
        True,
    )
)


def _window(seeds: Sequence[int]) -> Measured:
    tried = {m: [f"m = {m}, rate {lr:g}" for lr in heavy.WINDOW_RATES] for m in heavy.WINDOWS}
    best = {m: min(names, key=lambda name: loss(name, seeds)) for m, names in tried.items()}
    ends = {m: loss(name, seeds) for m, name in best.items()}
    larger = {f"larger network, m = {m}": f"larger network, m = {m}" for m in (1, 16)}
    larger["larger network, m = 128"] = "S-MFAC 1 %"
    rows = [shown(name) for names in tried.values() for name in names]
    rows += [(label, *shown(name)[1:]) for label, name in larger.items()]
    return Measured(
        COLUMNS,
        tuple(rows),
        (
            Condition("training loss at m = 128 <= that at m = 1, each at its best rate", ends[128], ends[1]),
            Condition("at m = 128 <= at m = 8", ends[128], ends[8]),
            Condition("at m = 128 <= at m = 32", ends[128], ends[32]),
        ),
        {"dots": {name: column(name, "loss") for name in best.values()}},
    )


register(
    Claim(
        "window-size",
        "A large window is recommended",
        "it is recommended to use a large history size ... using a value of m as large as possible is recommended",
        "efcp.txt, lines 428 to 430; appendix D",
        HOLDS,
        _window,
        "Softmax regression, S-MFAC at 5 %. A smaller window makes shorter steps (the first is m g / (lam m + "
        "|g|^2)), so three rates are tried for each. The figure has the best of them.",
        _dots,
        "Dots of the training loss for four window sizes, each at its best rate.",
        True,
        "The larger network at 1 %, one rate for all windows: the last rows of the table. It speaks for large windows "
        "even more, but for a wrong reason, since at one rate the small ones make shorter steps.",
    )
)


def _damping(seeds: Sequence[int]) -> Measured:
    lams = heavy.SWEEP_LAM
    names = {lam: f"lr {heavy.SWEEP_LR[-1]:g}, lam {lam:g}" for lam in lams}
    ends = {lam: loss(name, seeds) for lam, name in names.items()}
    best = min(ends.values())
    down = [row for name in heavy.damping_settings() for row in records()[name] if row["diverged"]]
    largest = max(float(row["name"].split("lam ")[1].split(",")[0]) for row in down)
    gaps, norms = zip(*(_newton(seed) for seed in seeds), strict=True)
    conditions = (
        Condition("damping 10^-6: |u - F^+ g| <= 0.01 |F^+ g| for g in the span of the window", max(gaps), 0.01),
        Condition("the smaller the damping, the longer u: |u| at 10^-3 over |u| at 1 at least 2", 2.0, min(norms)),
        Condition("too large: 5 x the best loss <= loss at damping 1", 5 * best, ends[1.0]),
        Condition("too small: 1.5 x the best loss <= loss at damping 10^-6", 1.5 * best, ends[1e-6]),
        Condition("what diverges, with feedback or without, has a damping of at most 10^-3", largest, 1e-3, 1.0),
    )
    curves = {"median of the seeds": (list(lams), [ends[lam] for lam in lams])}
    fed = sum(not row["name"].endswith("feedback") for row in down)
    sizes = {"m": heavy.CORNER_M, "rate": heavy.SWEEP_LR[-1], "each": len(lams) * len(heavy.SEEDS)}
    data = {"curves": curves, "say": {"fed": fed, "down": len(down), **sizes}}
    return Measured(COLUMNS, tuple(shown(name) for name in names.values()), conditions, data)


def _newton(seed: int, m: int = 8) -> tuple[float, float]:
    """Return |u - F^+ g| / |F^+ g| at damping 10^-6, g in the span of the window, and |u| at 10^-3 over |u| at 1."""
    rng = np.random.default_rng(seed)
    G, mix = recorded_gradients(SOFTMAX, m), rng.standard_normal(m)
    g = mix @ G
    basis, R = np.linalg.qr(G.T)  # F = basis (R R^T / m) basis^T
    newton = basis @ np.linalg.solve(R @ R.T / m, basis.T @ g)
    u = {lam: mfac_direction(G, lam, g).u for lam in (1e-6, 1e-3, 1.0)}
    gap = np.linalg.norm(u[1e-6] - newton) / np.linalg.norm(newton)
    return float(gap), float(np.linalg.norm(u[1e-3]) / np.linalg.norm(u[1.0]))


register(
    Claim(
        "small-damping",
        "A small damping is near Newton's method, a large one underfits",
        "if the model diverges, then the dampening is too small and it should be increased ... if the model "
        "underfits, then the dampening is too large and it should be decreased",
        "efcp.txt, lines 425 and 426; appendix D",
        HOLDS,
        _damping,
        "Newton's method with the empirical Fisher F for the Hessian: for a gradient in the span of the window u goes "
        "to F^+ g. Training: softmax regression, S-MFAC at 1 %, m = {m}, rate {rate:g}, five seeds. Of {each} runs "
        "with error feedback and {each} without {down} diverge, {fed} of them with it, all at small dampings.",
        lambda m: figures.lines(m.data["curves"], "damping", "training loss", xscale="log", yscale="log"),
        "Training loss against the damping on logarithmic axes: lowest at 0.01, higher on both sides.",
        True,
    )
)


def _sizes(seeds: Sequence[int]) -> Measured:
    names = {
        (method, size): f"{method}, images a step: {size}"
        for method in ("D-MFAC", "S-MFAC 1 %")
        for size in heavy.SIZES
    }
    conditions = []
    for method in ("D-MFAC", "S-MFAC 1 %"):
        rows = [row for size in heavy.SIZES for row in records()[names[method, size]] if row["seed"] in seeds]
        peak = max(max(value for _, value in row["curve"]) / row["curve"][0][1] for row in rows)
        found = [accuracy(names[method, size], seeds) for size in heavy.SIZES]
        conditions += [
            Condition(f"{method}: the loss never exceeds 1.5 x that at the start", peak, 1.5),
            Condition(f"{method}: accuracies of the batch sizes within 2 points", max(found) - min(found), 2.0),
        ]
    curves = {
        method: (list(heavy.SIZES), [accuracy(names[method, size], seeds) for size in heavy.SIZES])
        for method in ("D-MFAC", "S-MFAC 1 %")
    }
    largest = heavy.size_settings()[names["D-MFAC", heavy.SIZES[-1]]]
    say = {"rate": largest.lr, "epochs": heavy.SIZE_EPOCHS, "steps": largest.steps, **largest.options}
    data = {"curves": curves, "say": say}
    return Measured(COLUMNS, tuple(shown(name) for name in names.values()), tuple(conditions), data)


register(
    Claim(
        "mfac-batch-size",
        "M-FAC is stable at small and at large batches",
        "Both S/D-MFAC have stable convergence at both small and large batch sizes",
        "efcp.txt, line 419; appendix D",
        PART,
        _sizes,
        "Softmax regression, m = {m}, damping {lam:g}, rate {rate:g} for all, {epochs} epochs for each. Stable: yes, "
        "no loss rises. Converged: not at the largest batch, whose {epochs} epochs are only {steps} steps; the first "
        "m of them fill the window.",
        lambda m: figures.lines(
            m.data["curves"], "images in a minibatch", "mean test accuracy, per cent", xscale="log"
        ),
        "Mean test accuracy against batch size for dense and sparse M-FAC: level from 8 to 128 images, lower at 512, "
        "the dense one far lower.",
        True,
    )
)
