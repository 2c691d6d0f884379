"""Targets and reports that several tests of the oracle share."""

import json
from pathlib import Path

WRONG = '''
import numpy as np

def sp(indices, values, g):
    return (values * g[indices]).sum(1)

def lcg(indices, values, c, d):
    omega = np.zeros(d, values.dtype)
    for i, v, a in zip(indices, values, c):
        omega[i] = a * v  # overwrites instead of adding
    return omega

def top_k(a, k):
    if len(a) > 40:
        raise KeyError("more than 40")
    i = np.argsort(-abs(a), kind="stable")[:k].astype(np.int32)
    return i, a[i]
'''
OPERATIONS = ("sp", "lcg", "top_k")


def wrong(folder: Path) -> str:
    """A target with one operation that passes, one that fails, one that raises."""
    path = folder / "wrong.py"
    path.write_text(WRONG)
    return str(path)


def lines(folder: Path) -> list[dict]:
    """The report of a folder, read back."""
    return [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]


def same(value: dict) -> dict:
    """A report as JSON without what the clock decides."""
    for operation in value["operations"]:
        operation.pop("seconds")
    return {**value, "seconds": 0}
