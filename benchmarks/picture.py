"""The picture of growth: time and memory against d, m, density and block size, log-log, with slopes, as SVG.

Series differ in colour (Okabe and Ito, made for colour-blind eyes), in dashes and in the shape of their marks, and are
named at the slope. Two columns of panels, so that the text can be read on a phone; the ground is light, and the site
turns it dark on a dark page, as it does with every figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, log10
from typing import Any

WIDTH, HEIGHT, LEFT, TOP = 180, 130, 72, 32  # a panel's plot, and where the first one starts
STEP_X, STEP_Y = WIDTH + 92, HEIGHT + 112
NAMES = {"d": "d", "m": "m", "density": "density", "block_size": "block size"}
SERIES = (("sp", "SP", "#0072B2", "", "circle"), ("lcg", "LCG", "#D55E00", "6 3", "square"),
          ("insertion", "insertion", "#008F68", "2 3", "diamond"))  # fmt: skip
BYTES = (("bytes", "bytes", "#B8568C", "", "circle"),)
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.axis{stroke:#666}.grid{stroke:#8884;stroke-width:.5}"
    ".paper{fill:#fbfaf5}"
)


class Scale:
    """A logarithmic axis from the data's decade below to the decade above, or the data's own ends."""

    def __init__(self, values: list[float], start: float, length: float, decades: bool) -> None:
        low, high = log10(min(values)), log10(max(values))
        self.low, self.high = (floor(low), ceil(high)) if decades else (low - 0.05, high + 0.05)
        self.start, self.length = start, length

    def __call__(self, value: float) -> float:
        """Return where a value lies."""
        return self.start + (log10(value) - self.low) / (self.high - self.low) * self.length

    def decades(self) -> list[int]:
        """Return the decades that the axis shows."""
        return list(range(ceil(self.low), floor(self.high) + 1))


def mark(shape: str, x: float, y: float, colour: str) -> str:
    """Return one mark."""
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"/>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if shape == "diamond" else ""
    return f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="{colour}"{turn}/>'


def short(value: float) -> str:
    """Return a number for an axis.

    >>> short(11_689_512), short(0.0025), short(1024)
    ('11.7M', '0.25%', '1024')
    """
    if value < 1:
        return f"{100 * value:g}%"
    return f"{value / 1e6:.1f}M" if value >= 1e5 else f"{value:g}"


def panel(sweep: Mapping[str, Any], name: str, series: tuple[Any, ...], column: int, row: int) -> str:
    """Return one panel: axes, one line per series, and the slopes below."""
    x0, y0 = LEFT + column * STEP_X, TOP + row * STEP_Y
    xs, points, out = sweep["values"], sweep["points"], []
    x = Scale(xs, x0, WIDTH, decades=False)
    y = Scale([p[key] for p in points for key, *_ in series], y0 + HEIGHT, -HEIGHT, decades=True)
    for decade in y.decades():
        at = y(10.0**decade)
        out.append(f'<line class="grid" x1="{x0}" x2="{x0 + WIDTH}" y1="{at:.1f}" y2="{at:.1f}"/>')
        label = f"{10.0**decade:g} s" if series is SERIES else f"{10.0 ** (decade - 6):g} MB"
        out.append(f'<text x="{x0 - 6}" y="{at + 4.5:.1f}" text-anchor="end">{label}</text>')
    for value in (xs[0], xs[-1]):
        out.append(f'<text x="{x(value):.1f}" y="{y0 + HEIGHT + 17}" text-anchor="middle">{short(value)}</text>')
    out.append(f'<path class="axis" fill="none" d="M{x0} {y0}V{y0 + HEIGHT}H{x0 + WIDTH}"/>')
    for n, (key, label, colour, dash, shape) in enumerate(series):
        places = [(x(v), y(p[key])) for v, p in zip(xs, points, strict=True)]
        path, line = " ".join(f"{a:.1f},{b:.1f}" for a, b in places), f'stroke="{colour}" stroke-dasharray="{dash}"'
        out.append(f'<polyline fill="none" {line} stroke-width="1.8" points="{path}"/>')
        out += [mark(shape, a, b, colour) for a, b in places]
        at = y0 + HEIGHT + 36 + 17 * n
        out.append(mark(shape, x0 + 4, at - 4, colour))
        out.append(f'<text x="{x0 + 14}" y="{at}">{label}: slope {sweep["slopes"][key]:.2f}</text>')
    title = f"{'time' if series is SERIES else 'memory'} against {NAMES[name]}"
    out.append(f'<text x="{x0}" y="{y0 - 10}" font-weight="600">{title}</text>')
    return "\n".join(out)


def picture(growth: Mapping[str, Any]) -> str:
    """Return the whole picture, SVG."""
    sweeps = growth["sweeps"]
    wide, high = LEFT + 2 * STEP_X - 74, TOP + 4 * STEP_Y - 32
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
        'role="img" '
        'aria-label="Log-log plots of time and memory of SP, LCG and insertion against d, m, density and block size">'
        f'<style>{STYLE}</style><rect class="paper" width="{wide}" height="{high}"/>'
    )
    panels = [panel(sweeps[n], n, s, c, r) for r, n in enumerate(sweeps) for c, s in enumerate((SERIES, BYTES))]
    return "\n".join([head, *panels, "</svg>"]) + "\n"
