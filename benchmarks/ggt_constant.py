"""Does the constant of the GGT direction hold? Correct float32 code, in any order, must stay below its bound.

    python benchmarks/ggt_constant.py --cases 10000 --seed 20260101 benchmarks/results/ggt_constant.json

Correct implementations (four LAPACK drivers, random and BLAS summation, line 11 in both forms) are judged twice: given
every stage, and with only u visible. A ``fail`` is a false alarm. The cases are those of the criterion's own test.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from efcp_ref.oracle.core import FAIL, INCONCLUSIVE
from tests.oracle.criteria.test_eigen import DRIVERS, SHAPES, direction, judged, make


def measure(cases: int, seed: int) -> dict[str, Any]:
    """Judge so many cases; return the largest ratios, the counts of verdicts and the cases that failed."""
    rng = np.random.default_rng(seed)
    ratio: dict[str, float] = {"staged": 0.0, "u only": 0.0}
    said: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    alarms: list[tuple[Any, ...]] = []
    for n in range(cases):
        case = make(rng, *SHAPES[rng.integers(len(SHAPES))])
        driver, order, literal = DRIVERS[rng.integers(4)], ("blas", "random")[rng.integers(2)], rng.random() < 1 / 3
        with np.errstate(all="ignore"):
            result = direction(case, np.float32, rng, driver, order, literal)
        for way, shown in (("staged", result), ("u only", {"u": result["u"]})):
            verdict, checks = judged(case, shown)
            said[f"{way}: {verdict}"] += 1
            ratio[way] = max([ratio[way], *(c.ratio for c in checks if c.stage == "u" and np.isfinite(c.ratio))])
            reasons.update(c.reason for c in checks if c.verdict == INCONCLUSIVE)
            alarms += [(n, way, c.stage, c.reason, c.ratio) for c in checks if c.verdict == FAIL][:1]
    return {"cases": cases, "seed": seed, "largest ratio": ratio, "verdicts": dict(said), "reasons": dict(reasons),
            "false alarms": alarms[:20], "count of false alarms": len(alarms)}  # fmt: skip


def main() -> None:
    """Measure, print, and write to the file that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = json.dumps(measure(options.cases, options.seed), indent=1)
    print(text)
    if options.file:
        options.file.parent.mkdir(parents=True, exist_ok=True)
        options.file.write_text(text + "\n")


if __name__ == "__main__":
    main()
