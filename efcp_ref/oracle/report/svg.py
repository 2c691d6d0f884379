"""Pictures inside the page: distributions of ratios and heat maps, drawn as SVG, told apart by more than colour."""

from __future__ import annotations

import html
from collections.abc import Mapping

import numpy as np

from efcp_ref.oracle.report.collect import HIGHEST, LOWEST, STEP, Bar

WIDTH, HEIGHT = 380, 34
CELL, ROW = 15, 32  # size of a heat map's cell, cells per row of a vector
MOST = 512  # cells drawn; of larger arrays the part around the first departure


def _x(decade: float) -> float:
    return 40 + (decade - LOWEST) / (HIGHEST - LOWEST) * (WIDTH - 80)


def _rect(x: float, y: float, width: float, height: float, css: str, title: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{css}">'
        f"<title>{html.escape(title)}</title></rect>"
    )


def distribution(bars: Mapping[Bar, int], label: str) -> str:
    """Return the distribution of ratios on a logarithmic axis, the bound marked at 1; the exact hits stand on the left.

    >>> distribution({"0": 3, -4: 2}, "sp, tier T2").count("<rect")
    2
    """
    most = max(bars.values(), default=1)
    width = (WIDTH - 80) * STEP / (HIGHEST - LOWEST)
    drawn = []
    for bar, count in bars.items():
        tall = max(2.0, (HEIGHT - 12) * np.log1p(count) / np.log1p(most))
        beyond = bar == "inf" or (not isinstance(bar, str) and bar >= 0)
        x, words = _place(bar)
        drawn.append(_rect(x, HEIGHT - 10 - tall, width - 1, tall, "over" if beyond else "within", f"{words}: {count}"))
    ticks = "".join(
        f'<text x="{_x(d):.1f}" y="{HEIGHT - 1}" text-anchor="middle">{"1" if d == 0 else f"1e{d:g}"}</text>'
        for d in (-6, -3, 0, 3)
    )
    line = f'<line x1="{_x(0):.1f}" x2="{_x(0):.1f}" y1="0" y2="{HEIGHT - 10}" class="bound"/>'
    ends = f'<text x="14" y="{HEIGHT - 1}" text-anchor="middle">0</text>'
    ends += f'<text x="{WIDTH - 12}" y="{HEIGHT - 1}" text-anchor="middle">inf</text>'
    axis = f'<line x1="0" x2="{WIDTH}" y1="{HEIGHT - 10}" y2="{HEIGHT - 10}" class="axis"/>'
    return (
        f'<svg class="spread" role="img" aria-label="{html.escape(label)}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}">{axis}{"".join(drawn)}{line}{ticks}{ends}</svg>'
    )


def _place(bar: Bar) -> tuple[float, str]:
    if bar == "0":
        return 8.0, "exact"
    if bar == "inf":
        return WIDTH - 18.0, "infinite"
    low = int(bar) * STEP
    if low >= HIGHEST:
        return _x(HIGHEST), f"{10**HIGHEST:.0f} times the bound and more"
    return _x(low), f"{10**low:.2g} to {10 ** (low + STEP):.2g} of the bound"


# --- heat maps ----------------------------------------------------------------------------------------------------


def _mixed(share: float, dark: tuple[int, int, int]) -> str:
    """White to a colour: the eye reads the depth, so it also works without colours."""
    share = float(min(max(share, 0.0), 1.0))
    return "#" + "".join(f"{round(255 + (c - 255) * share):02x}" for c in dark)


BLUE, ORANGE = (0, 90, 156), (200, 80, 0)  # apart for every kind of colour blindness, and in brightness from white


def value_colour(value: float, largest: float) -> str:
    """Return blue for negative, orange for positive values; black for what is not finite."""
    if not np.isfinite(value):
        return "#000000"
    return _mixed(abs(value) / largest if largest else 0.0, ORANGE if value > 0 else BLUE)


def ratio_colour(ratio: float) -> str:
    """Return white to blue within the bound, orange beyond it, darker per decade.

    >>> ratio_colour(0.0), ratio_colour(1e9) == ratio_colour(1e8)
    ('#ffffff', True)
    """
    if ratio <= 1:
        return _mixed(0.5 * ratio, BLUE)
    return _mixed(0.45 + min(np.log10(ratio), 6) / 10 if np.isfinite(ratio) else 1.05, ORANGE)


def window(shape: tuple[int, ...], first: int) -> tuple[int, int, int]:
    """Return start and stop of the flat cells that are drawn, and the cells of one row.

    >>> window((4, 6), 5), window((5000,), 2000)
    ((0, 24, 6), (1728, 2240, 32))
    """
    columns = shape[-1] if len(shape) > 1 and shape[-1] <= 64 else ROW
    cells = int(np.prod(shape))
    if cells <= MOST:
        return 0, cells, min(columns, cells) or 1
    start = max(0, min(first - MOST // 2, cells - MOST)) // columns * columns
    return start, min(start + MOST, cells), columns


def heat(values: np.ndarray, ratio: np.ndarray, kind: str, label: str) -> str:
    """Return one heat map: ``kind`` is value or ratio; cells beyond the bound are crossed, the first is framed."""
    flat, ratios = values.reshape(-1), ratio.reshape(-1)
    beyond = np.flatnonzero(ratios > 1)
    first = int(beyond[0]) if len(beyond) else 0
    start, stop, columns = window(values.shape, first)
    shown = flat[start:stop]
    largest = float(np.abs(shown[np.isfinite(shown)]).max(initial=0.0))
    cells = []
    for i, value in enumerate(map(float, shown)):
        x, y = i % columns * CELL, i // columns * CELL
        colour = ratio_colour(value) if kind == "ratio" else value_colour(value, largest)
        at = ", ".join(str(int(n)) for n in np.unravel_index(start + i, values.shape))
        place = f'x="{x}" y="{y}" width="{CELL}" height="{CELL}"'
        cells.append(f'<rect {place} fill="{colour}" class="cell"><title>[{at}] {value!r}</title></rect>')
        if ratios[start + i] > 1:
            cells.append(f'<path d="M{x + 4} {y + 4}l7 7m0-7l-7 7" class="cross"/>')
    frame = _frame(first - start, columns) if len(beyond) else ""
    width, height = columns * CELL + 4, -(-len(shown) // columns) * CELL + 4
    return (
        f'<svg class="heat" role="img" aria-label="{html.escape(label)}" viewBox="-2 -2 {width} {height}" '
        f'width="{width}" height="{height}">{"".join(cells)}{frame}</svg>'
    )


def _frame(cell: int, columns: int) -> str:
    x, y = cell % columns * CELL, cell // columns * CELL
    return f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" class="first"/>'
