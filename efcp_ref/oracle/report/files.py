"""Writes a report into a folder: ``report.jsonl``, ``junit.xml``, ``summary.md`` and ``index.html``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from efcp_ref.oracle.judge import Report
from efcp_ref.oracle.report.collect import Stats
from efcp_ref.oracle.report.evidence import Evidence, evidence
from efcp_ref.oracle.report.machines import FORMAT, jsonl, junit, markdown
from efcp_ref.oracle.report.page import page
from efcp_ref.oracle.targets import Judged, UsageError

FILES = ("report.jsonl", "junit.xml", "summary.md", "index.html")


def evidence_of(report: Report, target: Judged) -> dict[int, Evidence]:
    """Run every failure that is shown once more, and return what its page shows, by ``id(failure)``."""
    failures = [f for o in report.operations for f in o.failures if f.verdict.verdict == "fail"]
    return {id(failure): evidence(target, failure) for failure in failures}


def ours(folder: Path, campaign: bool = False) -> None:
    """Refuse a folder in which a report would replace a file that no report of ours put there, or a campaign's report.

    Args:
        folder: where the report is to be written.
        campaign: whether it is a campaign's own, which looks after what is there itself.

    Raises:
        UsageError: a campaign's report is there, and this is none; or one of `FILES` is there, and ``report.jsonl``,
            which is always written first, is not a report.
    """
    there = [name for name in FILES if os.path.lexists(folder / name)]
    try:
        with open(folder / FILES[0], "rb") as file:
            known = there and f'"format": "{FORMAT}"'.encode() in file.read(200)
    except OSError:
        known = False
    if not campaign and os.path.lexists(folder / "campaign.json"):
        raise UsageError(f"{folder} holds the report of a campaign, which would be lost: choose another folder")
    if there and not known:
        raise UsageError(f"{folder / there[0]} was not written by efcp-ref and would be lost: choose another folder")


def write(folder: Path, report: Report, stats: Stats, found: Mapping[int, Evidence] | None = None) -> list[Path]:
    """Write all files, each whole or not at all, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = (jsonl(report, stats), junit(report, stats), markdown(report), page(report, stats, found or {}))
    paths = [folder / name for name in FILES]
    for path, text in zip(paths, texts, strict=True):
        beside = path.with_name(path.name + ".new")
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    return paths
