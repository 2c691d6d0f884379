"""The printed lines, the tagged code lines and the notation hold together."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import efcp_ref.paper
from efcp_ref import contract
from efcp_ref.paper import printed

FOLDER = Path(efcp_ref.paper.__file__).parent
SOURCES = {str(path.relative_to(FOLDER)): path.read_text(encoding="utf-8") for path in sorted(FOLDER.rglob("*.py"))}
LENGTHS = {"1": 10, "2": 17, "3": 30, "4": 12, "5": 6, "6": 16, "7": 10, "S1": 8, "K": 6, "W": 10}
WHY = {"inputs", "header", "end", "comment", "barrier"}

# Names of arguments that are words of programming or of the checks, not symbols of the paper.
WORDS = """
    self cls state run steps step rng name source shape size count dtype index normalise per_tensor ridge
    block blocks threads first second end dense sparse rows root buffer new feedback levels unbiased
    method tolerance variant constants classes shortcuts one_dimensional practical truncated share items
    index_bytes value_bytes hours rest
"""
PLAIN = set(WORDS.split())


def problems(sources: dict[str, str]) -> list[str]:
    """Return what is wrong with the tags of these files."""
    lines, files = printed.lines(), {key: a.file for key, a in printed.algorithms().items()}
    found = [(tag, file, number) for file, text in sources.items() for number, tag in printed.tags(text)]
    seen = Counter(tag for tag, _, _ in found)
    wrong = [f"missing {tag}" for tag, line in lines.items() if line.kind == "code" and not seen[tag]]
    wrong += [f"doubled {tag}" for tag, n in seen.items() if n > 1]
    for tag, file, number in found:
        if tag not in lines:
            wrong.append(f"invented {tag}")
        elif lines[tag].kind == "structure":
            wrong.append(f"structure {tag}")
        elif files[lines[tag].key] != file:
            wrong.append(f"misplaced {tag} in {file}")
        if sources[file].splitlines()[number - 1].lstrip().startswith("#"):
            wrong.append(f"comment {tag}")
    return sorted(wrong)


def test_the_tags_are_exactly_the_printed_lines_of_code() -> None:
    assert problems(SOURCES) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("algorithm_2.py", "# 2:11", "#", "missing 2:11"),
        ("algorithm_3.py", "# 3:26", "# 3:27", "doubled 3:27"),
        ("algorithm_3.py", "# 3:26", "# 3:27", "missing 3:26"),
        ("algorithm_3.py", "# 3:27", "# 3:31", "invented 3:31"),
        ("algorithm_2.py", "# 2:16", "# 2:17", "structure 2:17"),
        ("algorithm_3.py", "# 3:7\n", "# 2:3\n", "misplaced 2:3 in algorithm_3.py"),
        ("top_k.py", "# K:1\n", "#\n    # K:1\n", "comment K:1"),
        ("algorithm_1.py", "# 1:9", "# 9:9", "invented 9:9"),
    ],
)
def test_a_planted_mistake_is_found(file: str, old: str, new: str, complaint: str) -> None:
    assert SOURCES[file].count(old) == 1
    assert complaint in problems({**SOURCES, file: SOURCES[file].replace(old, new)})


def test_every_line_is_there_once_and_in_order() -> None:
    by_key: dict[str, list[printed.Line]] = {}
    for line in printed.lines().values():
        by_key.setdefault(line.key, []).append(line)
    assert {key: len(rows) for key, rows in by_key.items()} == LENGTHS
    assert set(by_key) == set(printed.algorithms())
    for key, rows in by_key.items():
        assert [line.n for line in rows] == list(range(1, LENGTHS[key] + 1))
        if key not in "KW":
            assert [line.at - rows[0].at for line in rows] == list(range(LENGTHS[key]))


def test_R36_algorithm_7_is_numbered_in_the_order_of_printing() -> None:
    rows = [line for line in printed.lines().values() if line.key == "7"]
    assert rows[0].latex.startswith(r"$\xi_0 = 0_d")
    assert rows[8].latex.startswith(r"$\theta_{t+1}")
    assert [line.n for line in rows if line.kind == "structure"] == [10]
    assert all("R36" in line.reading for line in rows)


def test_a_structure_line_says_why_and_a_line_of_code_does_not() -> None:
    for line in printed.lines().values():
        assert (line.why in WHY) if line.kind == "structure" else (line.kind == "code" and line.why == ""), line.tag
        assert line.latex or line.why == "comment", line.tag
        if line.why == "end":
            assert "end " in line.latex
        if line.why == "barrier":
            assert line.latex == "synchronize threads"


def test_readings_are_rows_of_the_readings() -> None:
    numbers = {reading for line in printed.lines().values() for reading in line.reading}
    assert all(re.fullmatch(r"R\d+", reading) and 1 <= int(reading[1:]) <= 42 for reading in numbers)
    assert {f"R{n}" for n in range(15, 30)} <= numbers  # those that change a numbered line of Algorithms 2 to 7


def balanced(text: str) -> bool:
    """Whether every brace is closed, $ stand in pairs, and no formula cuts through a brace."""
    depth = 0
    for part in text.split("$"):
        for brace in re.findall(r"(?<!\\)[{}]", part):
            depth += 1 if brace == "{" else -1
            if depth < 0:
                return False
        if depth:
            return False
    return text.count("$") % 2 == 0


def test_latex_balances() -> None:
    for line in printed.lines().values():
        assert balanced(line.latex), line.tag
        assert balanced(line.comment), line.tag
    for symbol in printed.symbols():
        assert "$" not in symbol.paper, symbol.code
        assert balanced(f"${symbol.paper}$"), symbol.code


@pytest.mark.parametrize("text", ["$a_{t$", "$a}$", "$a", "$a_{t$ and $}$"])
def test_latex_that_does_not_balance_is_found(text: str) -> None:
    assert not balanced(text)


def test_one_code_name_per_meaning() -> None:
    meanings = Counter(symbol.meaning for symbol in printed.symbols())
    assert [meaning for meaning, n in meanings.items() if n > 1] == []
    places = Counter((symbol.code, symbol.where) for symbol in printed.symbols())
    assert [place for place, n in places.items() if n > 1] == []
    assert [s.code.lower() for s in printed.symbols()] == sorted(s.code.lower() for s in printed.symbols())
    assert not PLAIN & {symbol.code for symbol in printed.symbols()}


def arguments(source: str) -> dict[str, str]:
    """Return the argument names of every public function and method of a source text, with the function."""
    found: dict[str, str] = {}

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
                visit(child)
            if isinstance(child, ast.FunctionDef) and (child.name == "__init__" or not child.name.startswith("_")):
                a = child.args
                found.update((x.arg, child.name) for x in (*a.posonlyargs, *a.args, *a.kwonlyargs))

    visit(ast.parse(source))
    return found


def unnamed(sources: dict[str, str]) -> list[str]:
    """Return the arguments that are neither in the notation table nor plain words."""
    known = {symbol.code for symbol in printed.symbols()} | PLAIN
    public = {file: text for file, text in sources.items() if not Path(file).name.startswith("_")}
    return [f"{f}: {g}({n})" for f, text in public.items() for n, g in arguments(text).items() if n not in known]


def test_argument_names_follow_the_notation_table() -> None:
    assert unnamed(SOURCES) == []


def test_an_argument_that_nobody_named_is_found() -> None:
    assert unnamed({"new.py": "def f(theta, thetta): ...\nclass C:\n    def g(self, zz): ..."}) == [
        "new.py: f(thetta)", "new.py: g(zz)",
    ]  # fmt: skip


def test_the_contract_speaks_the_notation() -> None:
    known = {symbol.code for symbol in printed.symbols()}
    operations, optimizers = contract.OPERATIONS.values(), contract.OPTIMIZERS.values()
    names = {a.name for op in operations for a in op.arguments + op.results + op.stages}
    names |= {a.name for opt in optimizers for a in opt.parameters}
    names |= {re.sub(r"\d*\.\.$", "", key) for opt in optimizers for key in opt.state}
    assert names - known - {"T"} == set()


def test_the_contract_blames_printed_lines_of_code() -> None:
    blamed = {op.line for op in contract.OPERATIONS.values()} | {opt.line for opt in contract.OPTIMIZERS.values()}
    assert {printed.lines()[tag].kind for tag in blamed} == {"code"}


def test_tags_are_read_at_the_end_of_a_line_only() -> None:
    text = 'a = 1  # (d,)  # 1:5\nb = 2  # 1:5 and more\nc = "1:5"\nd = 3  # (R19)  # S1:12  \n# K:1'
    assert printed.tags(text) == [(1, "1:5"), (4, "S1:12"), (5, "K:1")]
