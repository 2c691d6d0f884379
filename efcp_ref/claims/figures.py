"""Figures: one style, readable on a dark page too, colours that the colour-blind tell apart.

The colours are Okabe and Ito's, the paler ones darkened to a contrast of at least 3 on the ground.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#008F68", "#B8568C", "#8A6D00", "#6B6B6B", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = "osD^vP*"
FEW = 7  # points of a curve, each with a tick of its own
PAPER = "#FBFAF5"  # an opaque light ground: the same figure is readable on a light and on a dark page
STYLE: dict[str, Any] = {
    "figure.figsize": (6.0, 3.6), "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER,
    "font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#D9D6CC",
    "grid.linewidth": 0.6, "lines.linewidth": 1.8, "legend.frameon": False, "svg.hashsalt": "efcp_ref",
    "svg.fonttype": "path", "figure.constrained_layout.use": True,
}


def axes(width: float = 6.0, height: float = 3.6, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure and its axes in the package's style; matplotlib is imported here and nowhere else."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.close("all")
    matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type, unused-ignore]
    return pyplot.subplots(1, columns, figsize=(width, height))


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str, xscale: str = "linear",
    yscale: str = "linear", pairs: bool = False,
) -> Any:
    """Return a figure with one line per name: colour, dash and marker all differ; of pairs the second is dashed."""
    from matplotlib.ticker import NullLocator

    figure, ax = axes(height=4.0)
    for n, (name, (xs, ys)) in enumerate(curves.items()):
        look = n // 2 if pairs else n % 7
        dash, every = DASHES[n % 2 if pairs else look], max(1, len(xs) // 8)
        ax.plot(xs, ys, color=COLOURS[look], linestyle=dash, marker=MARKERS[look], markevery=every, markersize=5,
                label=name)
    finished(figure, ax, x, y, xscale, yscale)
    if len(xs := next(iter(curves.values()))[0]) <= FEW:
        ax.set_xticks(list(xs), [f"{value:g}" for value in xs])
        ax.xaxis.set_minor_locator(NullLocator())
    return figure


def finished(figure: Any, ax: Any, x: str, y: str, xscale: str = "linear", yscale: str = "linear") -> Any:
    """Label the axes and place the legend below the plot, which is then as wide as a phone lets it be."""
    ax.set(xlabel=x, ylabel=y)
    if xscale != "linear":  # setting a scale, even the same one, would drop the ticks that are there
        ax.set_xscale(xscale)
    if yscale != "linear":
        ax.set_yscale(yscale)
    if names := ax.get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower center", ncols=3 if max(map(len, names)) < 20 else 2)
    return figure


def dots(groups: Mapping[str, Sequence[float]], label: str, xscale: str = "log") -> Any:
    """Return a figure with every seed as a dot and the median as a bar, one row per name."""
    figure, ax = axes(6.0, 0.9 + 0.3 * len(groups))
    for n, (name, values) in enumerate(groups.items()):
        other = "no feedback" in name or "equal loss" in name
        colour, marker = (COLOURS[1], "s") if other else (COLOURS[0], "o")
        ax.plot(values, [n] * len(values), marker, color=colour, markersize=5, alpha=0.75)
        middle = sorted(values)[len(values) // 2]
        ax.plot([middle, middle], [n - 0.3, n + 0.3], color=colour, linewidth=2.5)
    ax.set_yticks(range(len(groups)), list(groups))
    ax.invert_yaxis()
    return finished(figure, ax, label, "", xscale=xscale)


def save(figure: Any, file: Path) -> None:
    """Write the figure; the bytes of an SVG depend on the figure alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=110)
