"""Turns benchmarks/results/*.json into the table (results/table.md), docs/fast.md and the picture (growth.svg).

``python benchmarks/table.py`` writes them; ``tests/fast/test_figures.py`` asserts that they are what the results say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results", HERE.parent / "docs" / "fast.md"
PICTURES = (RESULTS / "growth.svg", DOCS.parent / "assets" / "fast-growth.svg")
START, END = "<!-- figures: written by benchmarks/table.py -->", "<!-- end of figures -->"
Results = Mapping[str, Mapping[str, Any]]
LIMIT = (
    "What limits it: NumPy makes one pass per operation. A slice goes through the sum, the magnitude, its maximum "
    "(which finds NaN and infinity), the comparison and the search for positions, one after another, and the search is "
    "the dearest of those inside the cache."
)


@dataclass(frozen=True)
class Row:
    """One figure to reach: what, the goal, where it is found, and when it is reached."""

    what: str
    goal: str
    figure: str
    value: Callable[[Mapping[str, Any]], float]
    reached: Callable[[float], bool]
    form: str = "{:.1f}"


def at_least(goal: float) -> Callable[[float], bool]:
    """Reached from this value on."""
    return lambda value: value >= goal


def at_most(goal: float) -> Callable[[float], bool]:
    """Reached up to this value."""
    return lambda value: value <= goal


def near(goal: float, width: float) -> Callable[[float], bool]:
    """Reached within this distance."""
    return lambda value: abs(value - goal) <= width


def _ratio(name: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda found: found["ratios"][name]


def _median(name: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda found: found["medians"][name]


def _slope(sweep: str, what: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda found: found["sweeps"][sweep]["slopes"][what]


def _step(key: str, dtype: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda found: found[key][dtype]


TIMES, SECONDS = "{:.1f} times", "{:.2f} s"
ROWS = (
    Row("SP against SciPy CSR", "at least 5 times faster", "products", _ratio("scipy sp / sp"), at_least(5), TIMES),
    Row("LCG against SciPy CSR", "at least 5 times faster", "products", _ratio("scipy lcg / lcg"), at_least(5), TIMES),
    Row("SP against PyTorch CSR, same threads", "at least 2 times faster", "products", _ratio("torch sp / sp"),
        at_least(2), TIMES),
    Row("LCG against PyTorch CSR, same threads", "at least 2 times faster", "products", _ratio("torch lcg / lcg"),
        at_least(2), TIMES),
    Row("SP against a copy of the bytes it reads", "at most 3 times its time", "products", _ratio("sp / copy"),
        at_most(3), TIMES),
    Row("LCG against a copy of the bytes it reads", "at most 3 times its time", "products", _ratio("lcg / copy"),
        at_most(3), TIMES),
    Row("Top-k with error feedback against a copy of the accumulator", "at most 4 times its time", "top_k",
        _ratio("feedback / copy"), at_most(4), TIMES),
    Row("ResNet-18 step, memory, float32 values", "at most 77 d bytes (F.1's 70 d and 10 %)", "step_resnet",
        _step("bytes per d", "float32"), at_most(77), "{:.1f} d"),
    Row("ResNet-18 step, memory, bfloat16 values", "at most 77 d bytes", "step_resnet",
        _step("bytes per d", "bfloat16"), at_most(77), "{:.1f} d"),
    Row("ResNet-18 step against the dense step, extrapolated, float32", "at least 20 times faster", "step_resnet",
        _step("dense / sparse", "float32"), at_least(20), TIMES),
    Row("ResNet-18 step against the dense step, extrapolated, bfloat16", "at least 20 times faster", "step_resnet",
        _step("dense / sparse", "bfloat16"), at_least(20), TIMES),
    Row("ResNet-18 step, float32", "reported", "step_resnet", _median("float32"), at_least(0), SECONDS),
    Row("BERT-Base step, uint16 and bfloat16: peak memory", "at most 12 GB (dense: 417 GiB)", "step_bert",
        lambda found: found["peak"] / 1e9, at_most(12), "{:.2f} GB"),
    Row("BERT-Base step", "reported", "step_bert", lambda found: found["median"], at_least(0), SECONDS),
    Row("SP and LCG against the naive form: time", "reported (the paper: 1.5-2 times)", "naive",
        lambda found: found["naive / ours"], at_least(1), TIMES),
    Row("SP and LCG against the naive form: memory saved", "reported (the paper: 20-30 %)", "naive",
        lambda found: 100 * found["memory saved"], at_least(0), "{:.0f} %"),
    *(Row(f"growth of {name} with {sweep}: log-log slope", "1.0 +- 0.1", "growth", _slope(sweep, what), near(1, 0.1),
          "{:.2f}")
      for sweep in ("d", "m") for what, name in (("sp", "SP"), ("lcg", "LCG"), ("insertion", "insertion"))),
    Row("writing the new row, growth with m", "0: one row is touched", "growth", _slope("m", "row"), near(0, 0.15),
        "{:.2f}"),
    Row("the m^3 part, a refactorisation: log-log slope", "measured", "solve",
        lambda found: found["slopes"]["refactorisation"], at_least(0), "{:.2f}"),
    Row("the m^2 part, the updated factor: log-log slope", "measured", "solve",
        lambda found: found["slopes"]["update"], at_least(0), "{:.2f}"),
    Row("updated factor against refactorisation, m = 1024", "the better one is used", "solve",
        lambda found: found["points"]["1024"]["ratio"], at_least(1), TIMES),
    Row("state to disk, ResNet-18, m = 1024", "bit exact", "disk_resnet", lambda found: float(found["bit exact"]),
        at_least(1), "{:.0f} (1: every bit)"),
    Row("import efcp_ref", "under 0.3 s", "imports", _median("import efcp_ref"), at_most(0.3), SECONDS),
    Row("efcp-ref --help", "under 0.4 s", "imports", _median("efcp-ref --help"), at_most(0.4), SECONDS),
)  # fmt: skip


def results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Read every figure that has been measured."""
    found = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    return {one["figure"]: one for one in found if "figure" in one}


def table(found: Results) -> str:
    """Return the table of figures, Markdown; a figure not measured says so."""
    lines = ["| what | goal | measured | reached | file |", "|---|---|---|---|---|"]
    for row in ROWS:
        if row.figure not in found:
            lines.append(f"| {row.what} | {row.goal} | not measured | no | {row.figure} |")
            continue
        value = row.value(found[row.figure])
        reached = "yes" if row.reached(value) else "**no**"
        lines.append(f"| {row.what} | {row.goal} | {row.form.format(value)} | {reached} | `{row.figure}.json` |")
    return "\n".join(lines)


def setting(found: Results) -> str:
    """Return one sentence on the machine, and how busy it was."""
    machines = {json.dumps(one["machine"], sort_keys=True) for one in found.values()}
    lines = []
    for text in sorted(machines):
        m = json.loads(text)
        lines.append(
            f"{m['processor']}, {m['cores']} cores, L2 {m['L2']}, {m['memory']}; Python {m['python']}, "
            f"NumPy {m['numpy']}, SciPy {m['scipy']}, PyTorch {m['torch']}."
        )
    loads = [one["load"]["before"] for one in found.values()]
    return " ".join(lines) + f" Load of the machine at the start of a figure: {min(loads):.1f} to {max(loads):.1f}."


def missed(found: Results) -> str:
    """Return one sentence naming the figures that are not reached."""
    rows = [row for row in ROWS if row.figure not in found or not row.reached(row.value(found[row.figure]))]
    if not rows:
        return "Every figure is reached."
    return f"Not reached: {'; '.join(row.what for row in rows)}. The tables below show where the time goes."


def per_entry(found: Results, figure: str) -> str:
    """Return where the time of a figure goes, pass by pass, Markdown."""
    passes = found.get(figure, {}).get("profile, ns per entry, 1 thread")
    if not passes:
        return "not measured"
    lines = ["| pass, one thread, the fastest of some rounds | ns per entry |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {ns:.2f} |" for name, ns in passes.items()])


def step_profile(found: Results) -> str:
    """Return where a step at ResNet-18 size spends its time, Markdown, and what a plain copy would take."""
    step = found.get("step_resnet", {})
    parts = step.get("parts", {})
    if not all("profile" in part for part in parts.values()) or not parts:
        return "not measured"
    lines = [f"| part of a step | {' | '.join(f'{k}, s | of the processors, s' for k in parts)} |",
             "|---|" + "---|---|" * len(parts)]  # fmt: skip
    for name in parts["float32"]["profile"]:
        cells = [part["profile"][name] for part in parts.values()]
        numbers = (f"{c['seconds']:.3f} | {c.get('of the processors', float('nan')):.3f}" for c in cells)
        lines.append(f"| {name} | {' | '.join(numbers).replace('nan', '')} |")
    copies = ", ".join(f"{part['bytes copied']:.2f} s in {name}" for name, part in parts.items())
    dense, used = step["dense, m = 1024, extrapolated"], step.get("dense / sparse, of the processors", {})
    counted = ", ".join(f"{ratio:.1f} times in {name}" for name, ratio in used.items())
    return "\n".join(lines) + (
        f"\n\nA step reads the window twice. One plain copy of its bytes, on one thread, takes {copies}. The dense "
        f"step was measured up to m = {max(map(int, step['dense']))}; extended to m = 1024 it takes {dense:.1f} s, "
        f"and a twentieth of that is {dense / 20:.2f} s."
        + (f" Counted in seconds of the processors, the sparse step is faster by {counted}." if counted else "")
    )


def one_row(found: Results) -> str:
    """Return one sentence on the part of SP and LCG that does not grow with m."""
    sweep = found.get("growth", {}).get("sweeps", {}).get("m", {})
    if "a window of one row" not in sweep:
        return "not measured"
    one, first = sweep["a window of one row"], sweep["points"][0]
    share = {what: 100 * one[what] / first[what] for what in ("sp", "lcg")}
    return (
        f"A window of one row takes {share['sp']:.0f} % (SP) and {share['lcg']:.0f} % (LCG) of what m = "
        f"{sweep['values'][0]} takes: the vector itself, and the calls for every slice, which do not grow with m."
    )


def section(found: Results) -> str:
    """Return what stands between the markers of docs/fast.md."""
    commands = "\n".join(one["command"] for one in found.values())
    return (
        f"{START}\n\n{setting(found)}\n\n{table(found)}\n\n{missed(found)} {one_row(found)}\n\n"
        f"Where SP and LCG spend their time, m = 256:\n\n{per_entry(found, 'products')}\n\n"
        f"Where Top-k with error feedback spends its time:\n\n{per_entry(found, 'top_k')}\n\n{LIMIT}\n\n"
        f"Where a step at ResNet-18 size, m = 1024, spends its time:\n\n{step_profile(found)}\n\n"
        f"Measured by:\n\n```\n{commands}\n```\n\n{END}"
    )


def page(text: str, found: Results) -> str:
    """Return docs/fast.md with the figures of the results."""
    before, _, rest = text.partition(START)
    return before + section(found) + rest.partition(END)[2]


def main() -> None:
    """Write the table, the page and the picture."""
    from picture import picture

    found = results()
    (RESULTS / "table.md").write_text(f"# Figures\n\n{setting(found)}\n\n{table(found)}\n")
    if DOCS.exists():
        DOCS.write_text(page(DOCS.read_text(), found))
    if "growth" in found:
        for place in PICTURES:
            place.write_text(picture(found["growth"]))


if __name__ == "__main__":
    main()
