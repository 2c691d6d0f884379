"""The checkers, checked: small changes in the criteria, each of which some test must notice.

    pip install cosmic-ray==8.7.0
    python benchmarks/mutation.py --sample 300

The changes are those of Cosmic Ray: an operator or a comparison turned into its opposite or its neighbour, a constant
one off, a condition turned round, a loop left out. Those that say nothing of a test are not made: in annotations, in
what only ``--certify`` runs, or of a kind that raises at once (``a << b`` on arrays). They are tried in a random order,
so that the first N are a random sample of all. Each is tried in a fork of a warm process that reads the changed text in
place of the file: no file is touched. The tests are those of the criterion, the quickest first, up to the first that
fails; last comes `test_pinned`, a trip wire, which sees that something has changed and not why that is wrong: what it
alone notices is counted apart. Results go to ``benchmarks/results/mutation.json`` after every change; run again, it
goes on, and ``--survivors`` tries those that have survived once more. A test that was written for a survivor does not
count as one that would have seen it: what was noticed at first is kept apart, and what is drawn after such tests is a
draw of its own. Once the criteria have changed, a new sample begins, of changes unlike those that were drawn before.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CRITERIA = ROOT / "efcp_ref" / "oracle" / "criteria"
HERE = "tests/oracle/criteria"
TESTS: dict[str, tuple[str, ...]] = {  # by file, in the order in which they are run
    "__init__.py": ("bounds", "terms", "corners", "sums", "selection", "pinned"),
    "sums.py": ("bounds", "terms", "corners", "sums", "fisher", "certified", "pinned"),
    "structure.py": ("bounds", "terms", "corners", "sums", "selection", "elementwise", "eigen", "certified", "pinned"),
    "selection.py": ("bounds", "terms", "corners", "selection", "certified", "pinned"),
    "elementwise.py": ("bounds", "terms", "corners", "elementwise", "certified", "pinned"),
    "low_rank.py": ("bounds", "terms", "corners", "low_rank", "certified", "pinned"),
    "scaled.py": ("bounds", "terms", "corners", "scaled", "certified", "pinned"),
    "eigen.py": ("bounds", "terms", "corners", "eigen", "certified", "pinned"),
    "fisher.py": ("bounds", "terms", "corners", "fisher", "certified", "pinned"),
    "workers.py": ("corners", "terms"),
    "replay": ("breakdown", "steps", "replay", "terms", "corners", "certified", "pinned"),
}
WORKERS = "tests/oracle/test_workers.py"
OPPOSITES = {"Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "Pow": "Mul", "FloorDiv": "Div", "Mod": "Div",
             "BitOr": "BitAnd", "BitAnd": "BitOr", "BitXor": "BitAnd", "Eq": "NotEq", "NotEq": "Eq", "Lt": "LtE GtE",
             "LtE": "Lt Gt", "Gt": "GtE LtE", "GtE": "Gt Lt", "Is": "IsNot", "IsNot": "Is"}  # fmt: skip
OTHERS = ("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd",
          "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer", "NumberReplacer",
          "RemoveDecorator", "ZeroIterationForLoop", "ReplaceUnaryOperator_Delete_USub",
          "ReplaceUnaryOperator_Delete_Invert", "ReplaceUnaryOperator_Delete_Not")  # fmt: skip
PLAIN = ("-q", "--no-header", "--tb=no", "--assert=plain", "-o", "addopts=", "-p", "no:cacheprovider",
         "-p", "no:doctest", "-p", "no:xdist", "-p", "no:cov")  # fmt: skip
SECONDS, WALL = 120, 900  # of the processor, and of the clock, before a change counts as a hang
MARGIN = "the oracle's own error, at most a few thousandths of the bound: only its order of size counts"
MET = "a rounded number does not meet the limit itself: equality does not occur"
LESS = "every negative number asks NumPy for the size that is left"
WHY: dict[tuple[str, str], str] = {  # (file, words of the line as it is now): why no test can see that change
    ("fisher.py", "return float(high / low) if low >= 0 else np.inf"): "a quotient by 0 is infinite, too",
    ("fisher.py", "[0] < (2 * m * (m + 1) + m * k) * u"): MET,
    ("fisher.py", "if not (np.abs(r.hi) >= error).any()"): MARGIN,
    ("fisher.py", "S.diagonal().max(initial= -1.0)"): "the diagonal holds sums of squares: none is below 0",
    ("low_rank.py", "if allowed >= 0.1:"): MET,
    ("low_rank.py", "if outside >= bound:"): MET,
    ("low_rank.py", "M = g.reshape(len(g), - 2)"): LESS,
    ("low_rank.py", "cond ** POWER.get(name, 0)"): "every name that can be declared is in the table",
    ("low_rank.py", "np.prod(steps) if np.isfinite(steps).all() else 1.0"):
        "stands where a factor is all zeros: every partial sum is 0, and exact on any grid",
    ("low_rank.py", "error + 2.0**-52 / (terms.shape[-1] + 1) * magnitude"): MARGIN,
    ("replay/factored.py", "unit.u <= 2.0**-30)"): "no unit is 2^-30",
    ("replay/hidden.py", "root = np.sqrt(np.where(on, G.value, 2.0))"):
        "of the entries that are not sent nothing is asked",
    ("replay/hidden.py", "rounding: Any = -1.0"): "a sum brings its own before anybody reads it",
    ("replay/hidden.py", 'starts(run, {"t": -1})'): "all that is asked is whether it is above 0",
    ("selection.py", ".u >= 2.0**-24 else [want]"): "a number that is rounded to float32 twice is rounded once",
    ("selection.py", 'case.arguments.get("density", 0)'): "asked of cases alone that have a density",
    ("structure.py", "gap = np.where(overflow, -1.0, apart(got, reference))"): "a gap below 0 is never the largest",
    ("workers.py", 'np.array_equal(t0.wide(workers[ -1]["u"])'):
        "every worker's u is the same there, bit for bit: else the replicas drift apart, which is said before",
    ("workers.py", "states for {len(both[fits[ -1]].u)} steps"): "both conventions have as many steps",
}  # fmt: skip
CERTIFIED = ("_certified", "_whole", "_beyond", "_stored")  # functions that do nothing else
KEYS = ("file", "operator", "occurrence", "line", "was")
Change = dict[str, Any]


def wanted(operator: str) -> bool:
    """Whether an operator of Cosmic Ray makes changes that only a test can notice."""
    name = operator.removeprefix("core/")
    kind, *pair = name.split("_")
    if name in OTHERS:
        return True
    replaced = kind in ("ReplaceBinaryOperator", "ReplaceComparisonOperator")
    return replaced and pair[1] in OPPOSITES.get(pair[0], "").split()


def aside(source: str) -> set[int]:
    """Return the positions, (line, column) in one number, of annotations and of what only ``--certify`` runs.

    Enclosures (lambdas, and functions that return one) are asked for with ``--certify`` alone; they have tests of their
    own, against rationals.
    """
    nodes: list[ast.AST] = []
    for node in ast.walk(ast.parse(source)):
        nodes += [part for part in (getattr(node, "annotation", None), getattr(node, "returns", None)) if part]
        encloses = isinstance(node, ast.FunctionDef) and (
            node.name in CERTIFIED or (node.returns and "enclose." in ast.unparse(node.returns))
        )
        nodes += [node] if encloses or (isinstance(node, ast.Lambda) and "enclose." in ast.unparse(node)) else []
    return {place for node in nodes for place in _places(source.splitlines(), node)}


def _places(lines: list[str], node: Any) -> Iterator[int]:
    for line in range(node.lineno, node.end_lineno + 1):
        first = node.col_offset if line == node.lineno else 0
        last = node.end_col_offset if line == node.end_lineno else len(lines[line - 1])
        yield from (_place(line, column) for column in range(first, last))


def _place(line: int, column: int) -> int:
    return line * 1000 + column


def changes(path: Path) -> Iterator[Change]:
    """Yield every change of one file."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    source = path.read_text(encoding="utf-8")
    tree, skipped, lines = get_ast(source), aside(source), source.splitlines()
    for name in filter(wanted, operator_names()):
        operator = get_operator(name)()
        positions = (p for node in ast_nodes(tree) for p in operator.mutation_positions(node))
        for occurrence, (start, *_) in enumerate(positions):
            if _place(*start) not in skipped:
                yield {"file": str(path.relative_to(CRITERIA)), "operator": name.removeprefix("core/"),
                       "occurrence": occurrence, "line": start[0], "was": lines[start[0] - 1].strip()}  # fmt: skip


def mutated(change: Change) -> str:
    """Return the whole file with the change made."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source = (CRITERIA / change["file"]).read_text(encoding="utf-8")
    text = mutate_code(source, get_operator("core/" + change["operator"])(), change["occurrence"])
    if text is None:
        raise ValueError(f"no such change: {change}")
    return text


class _Changed(importlib.abc.MetaPathFinder):
    """Imports one module from a changed text."""

    def __init__(self, path: Path, text: str) -> None:
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.package = parts[-1] == "__init__"
        self.name, self.path, self.text = ".".join(parts[: -1 if self.package else None]), path, text

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Find the one module."""
        if fullname != self.name:
            return None
        code = compile(self.text, str(self.path), "exec", dont_inherit=True)
        loader = importlib.machinery.SourceFileLoader(fullname, str(self.path))
        loader.get_code = lambda _: code  # type: ignore[method-assign,assignment,return-value]
        folders = [str(self.path.parent)] if self.package else None
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=loader, submodule_search_locations=folders
        )


class _First:
    """Remembers which test failed first."""

    failed = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the name of a failed test."""
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        """A module that cannot be imported fails too."""
        if report.failed and not self.failed:
            self.failed = f"import of {report.nodeid}"


def _child(change: Change, out: int) -> None:
    import pytest

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    sys.meta_path.insert(0, _Changed(CRITERIA / change["file"], mutated(change)))
    first, key = _First(), change["file"].split("/")[0]
    files = [f"{HERE}/test_{name}.py" for name in TESTS[key]] + [WORKERS] * (key == "workers.py")
    existing = [file for file in files if (ROOT / file).exists()]
    code = pytest.main(["-x", *PLAIN, *existing], plugins=[first])
    os.write(out, json.dumps([int(code), first.failed]).encode())


def tried(change: Change) -> Change:
    """Run the tests with the change made, in a fork; return the change with what became of it."""
    began, (read, write) = time.monotonic(), os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            _child(change, write)
        finally:
            os._exit(0)
    os.close(write)
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > began + WALL:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        time.sleep(0.05)
    told = b"".join(iter(lambda: os.read(read, 4096), b""))
    os.close(read)
    code, by = json.loads(told) if told else (1, "hang or crash")
    return {**change, "now": now(change), "outcome": "survived" if code == 0 else "killed", "by": by}


def now(change: Change) -> str:
    """Return the line as the change has it."""
    lines = (CRITERIA / change["file"]).read_text(encoding="utf-8").splitlines()
    return next(b for a, b in zip(lines, mutated(change).splitlines(), strict=False) if a != b).strip()


def interval(killed: int, of: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share (Clopper and Pearson)."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, killed, of - killed + 1)) if killed else 0.0
    high = float(beta.ppf(0.975, killed + 1, of - killed)) if killed < of else 1.0
    return round(low, 4), round(high, 4)


def explained(row: Change) -> Change:
    """Return a survivor with the reason why no test can see it, where one is known."""
    why = next((text for (file, words), text in WHY.items() if row["file"] == file and words in row["now"]), "")
    return {**row, "why": why} if row["outcome"] == "survived" else row


def shares(rows: list[Change]) -> dict[str, Any]:
    """Count what was noticed, now and before any test was written for a survivor, each with its interval."""
    killed = sum(row["outcome"] == "killed" for row in rows)
    first = [row for row in rows if row["outcome"] == "killed" and "at first" not in row]
    seen, wire = len(first), sum("test_pinned" in row.get("by", "") for row in first)
    return {"sample": len(rows), "killed": killed, "score": round(killed / max(len(rows), 1), 4),
            "95 % confidence interval": interval(killed, len(rows)),
            "noticed before tests were added for the survivors": seen,
            "score before": round(seen / max(len(rows), 1), 4),
            "95 % confidence interval before": interval(seen, len(rows)),
            "of these by the trip wire alone": wire}  # fmt: skip


def written(path: Path, told: dict[str, Any], rows: list[Change]) -> None:
    """Replace the file as a whole."""
    draws = [[row for row in rows if row["draw"] == n] for n in sorted({row["draw"] for row in rows})]
    whole = {"command": f"python benchmarks/mutation.py --sample {len(rows)}", **told, **shares(rows),
             "draws": list(map(shares, draws)), "rows": list(map(explained, rows))}  # fmt: skip
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def opened(path: Path, every: list[Change]) -> tuple[dict[str, Any], list[Change], list[Change]]:
    """Return what is told of the whole sample, its rows so far and all changes it may draw from, in their order."""
    text = b"".join(file.read_bytes() for file in sorted(CRITERIA.rglob("*.py")))
    code = hashlib.sha256(text).hexdigest()[:16]
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}
    same, before = old.get("code") == code, old.get("drawn before", [])
    before = before if same else [*before, *map(_kind, old["rows"])]
    open_ = [change for change in every if _kind(change) not in before]
    told = {"code": code, "changes in all": len(every), "drawn from": len(open_), "drawn before": before}
    return told, old["rows"] if same else [], open_


def _kind(change: Change) -> list[str]:
    return [change["file"], change["operator"], change["was"]]  # lines move, and a test for one sees its neighbours


def draw(rows: list[Change]) -> int:
    """Return the number of the draw that goes on: a new one begins once tests were written for survivors."""
    last = max((row["draw"] for row in rows), default=1)
    return last + any("at first" in row for row in rows if row["draw"] == last)


def _warm() -> None:
    """Import what every test needs and no criterion is part of."""
    import hypothesis
    import ml_dtypes
    import numpy
    import pytest
    import scipy.linalg

    import efcp_ref.oracle.cases
    import efcp_ref.oracle.certify
    import efcp_ref.oracle.enclose
    import efcp_ref.oracle.judge
    import efcp_ref.oracle.mutants

    null, out = os.open(os.devnull, os.O_WRONLY), os.dup(1)
    os.dup2(null, 1)
    pytest.main([*PLAIN, "--collect-only", "tests/oracle/test_exact.py"])  # imports what pytest imports on first use
    os.dup2(out, 1)
    assert not [name for name in sys.modules if name.startswith("efcp_ref.oracle.criteria")]
    _ = hypothesis, ml_dtypes, numpy, scipy.linalg, efcp_ref


def main() -> None:
    """Go on where the file stops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--survivors", action="store_true", help="try once more what has survived and is not explained")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "mutation.json")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    every = [change for path in sorted(CRITERIA.rglob("*.py")) for change in changes(path)]
    random.Random(options.seed).shuffle(every)
    told, rows, every = opened(options.output, every)
    _warm()
    rows = list(map(explained, rows))
    again = [i for i, row in enumerate(rows) if row.get("why") == ""] if options.survivors else []
    for i in again:
        rows[i] = tried({key: rows[i][key] for key in KEYS}) | {"draw": rows[i]["draw"], "at first": "survived"}
        written(options.output, told, rows)
    number = draw(rows)
    for change in every[len(rows) : options.sample]:
        if time.monotonic() > end:
            return
        rows.append(tried(change) | {"draw": number})
        written(options.output, told, rows)


if __name__ == "__main__":
    main()
