"""Writes the figures of docs/check/certify_and_replay.md from benchmarks/results/certify.json and replay.json.

``python benchmarks/certify_page.py`` writes them; ``tests/oracle/test_certify_page.py`` asserts that they are there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "check" / "certify_and_replay.md"


def results(name: str) -> dict[str, Any]:
    """Return what a benchmark wrote."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def table(rows: list[tuple[str, object]]) -> str:
    """Return a table of two columns."""
    return "\n".join(["| what | measured |", "| --- | ---: |", *(f"| {what} | {value} |" for what, value in rows)])


def certified(found: dict[str, Any]) -> str:
    """Return the figures of --certify."""
    whole, default = found["all"], found["default check"]
    seconds = whole["processor seconds"]
    every = whole["certified"] + whole["overturned"] + sum(whole["missing"].values())
    return table([
        ("cases judged", f"{whole['cases']:,}"), ("verdicts certified", f"{whole['certified']:,} of {every:,}"),
        ("by rationals, by balls, compared", f"{whole['rational']:,}, {whole['ball']:,}, {whole['comparison']:,}"),
        ("verdicts that became `inconclusive(oracle)`", whole["overturned"]),
        ("largest oracle error, in units of the bound", f"{whole['largest']:.3f}"),
        ("processor seconds without and with `--certify`, one process per operation",
         f"{seconds['without']:.0f}, {seconds['with']:.0f}"),
        ("the default check `efcp-ref check efcp_ref`", f"{default['processor seconds']:.0f} processor seconds"),
    ])  # fmt: skip


def replayed(found: dict[str, Any]) -> str:
    """Return the figures of the replay."""
    run, hit = found["run"], found["injected"]
    return table([
        ("steps judged", f"{run['steps']:,}"), ("of them wrong", run["failed"]),
        ("training images told right at the end", f"{100 * run['accuracy']:.1f} %"),
        ("size of the dump", f"{run['dump bytes'] / 2**20:.0f} MiB"),
        ("processor seconds of the replay", f"{run['processor seconds']:.0f}"),
        ("injected mistakes that change something beyond the bound", hit["visible"]),
        ("located at exactly their step", hit["located at their step"]),
        ("named by the report", hit["named"]),
        ("blamed on the mistake's own line", hit["blamed on their own line"]),
        ("injected mistakes that stay within rounding at their step", hit["within rounding at their step"]),
        ("alarms for those", hit["alarms for those"]),
    ])  # fmt: skip


def page(text: str) -> str:
    """Return the page with the figures of today."""
    for name, body in (("certify", certified(results("certify"))), ("replay", replayed(results("replay")))):
        mark = re.compile(rf"(<!-- figures: {name} -->\n).*?(<!-- end of figures -->)", re.DOTALL)
        text = mark.sub(lambda found, body=body: f"{found[1]}{body}\n{found[2]}", text)
    alt = results("replay")["run"]["alt"]
    return re.sub(r"!\[.*?\]\(\.\./assets/replay\.svg\)", lambda _: f"![{alt}](../assets/replay.svg)", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
