"""Figures and traces of the tutorials: one look, colours for every kind of sight, a text for every picture.

Figures stand on their own light card, so their text keeps its contrast on a dark page, too; the site turns the card
dark there. They are narrow, so that their text can be read on a phone. The colours are four of Okabe and Ito's, and
black: each has a contrast of at least 3 on the card. Lines differ in style as well as in colour.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure

from efcp_ref.tracing import Event, Trace, table

BLUE, RED, GREEN, PURPLE, BLACK = "#0072B2", "#D55E00", "#008F68", "#B8568C", "#222222"
COLOURS = (BLUE, RED, GREEN, PURPLE, BLACK)
CARD = "#fbfbfa"

plt.rcParams.update({
    "figure.facecolor": CARD, "axes.facecolor": CARD, "savefig.facecolor": CARD, "text.color": BLACK,
    "axes.labelcolor": BLACK, "xtick.color": BLACK, "ytick.color": BLACK, "axes.edgecolor": "#777777",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd",
    "axes.axisbelow": True, "font.size": 10.5, "legend.frameon": False, "lines.linewidth": 1.8, "figure.dpi": 110,
    "figure.constrained_layout.use": True, "figure.figsize": (6.0, 3.1), "axes.titlesize": 10.5,
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]),
})  # fmt: skip

_shown = 0


def _display() -> Callable[..., Any] | None:
    """Return a notebook's own display function; None in a script."""
    module = sys.modules.get("IPython")
    if module is None or module.get_ipython() is None:
        return None
    from IPython.display import publish_display_data

    return publish_display_data


def show(fig: Figure, alt: str) -> None:
    """Show a figure in a notebook, with ``alt`` for those who do not see it; in a script, draw it and go on.

    Where EFCP_FIGURES names a folder, the picture is also written there.
    """
    global _shown
    if len(alt.split()) < 8:
        raise ValueError(f"alt = {alt!r}, must say in a sentence what the figure shows")
    picture = io.BytesIO()
    fig.savefig(picture, format="png")
    plt.close(fig)
    _shown += 1
    if folder := os.environ.get("EFCP_FIGURES"):
        Path(folder, f"{Path(sys.argv[0]).stem}-{_shown}.png").write_bytes(picture.getvalue())
    if display := _display():
        display({"image/png": picture.getvalue(), "text/plain": alt}, metadata={"image/png": {"alt": alt}})


def show_trace(run: Trace, keep: Callable[[Event], bool] = lambda event: True) -> None:
    """Show those events of a trace that ``keep`` takes: as a table in a notebook, as text in a script."""
    part = replace(run, events=tuple(filter(keep, run.events)))
    if display := _display():
        display({"text/html": part._repr_html_(), "text/plain": f"trace of {run.function}"}, metadata={})
        return
    for row in table(part):
        print(f"{row.line:>5}  {row.code:<58}  {row.changed}")
