"""What the paper prints: the lines of its algorithms, and the notation, read from ``printed.toml``."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

TAG = re.compile(r"#\s+((?:S?\d|W|K):\d+)\s*$")  # at the end of a code line


@dataclass(frozen=True)
class Algorithm:
    """One algorithm, or one passage of the text that is executed."""

    key: str  # "1", "S1", "K"
    file: str  # of efcp_ref/paper: where its tagged lines are
    document: str  # paper | slides
    title: str


@dataclass(frozen=True)
class Line:
    """One printed line."""

    key: str  # of its algorithm
    n: int
    at: int  # line number in the document's text
    kind: str  # code: one tagged code line | structure: none
    latex: str  # text, with math between $
    comment: str = ""  # what is printed after the triangle
    why: str = ""  # structure only: inputs | header | end | comment | barrier
    reading: tuple[str, ...] = ()  # ("R19",)
    ours: bool = False  # the text says it in words, the formula is ours

    @property
    def tag(self) -> str:
        """The tag of its code line: "1:5"."""
        return f"{self.key}:{self.n}"


@dataclass(frozen=True)
class Symbol:
    """One meaning of one code name."""

    code: str
    paper: str  # LaTeX, "" where the paper has no symbol
    meaning: str
    shape: str
    where: str


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(resources.files("efcp_ref.paper").joinpath("printed.toml").read_text(encoding="utf-8"))


@cache
def algorithms() -> dict[str, Algorithm]:
    """Return the algorithms by key.

    >>> algorithms()["2"].title
    'SP kernel (CUDA)'
    """
    return {row["key"]: Algorithm(**row) for row in _table()["algorithm"]}


@cache
def lines() -> dict[str, Line]:
    """Return every printed line by tag, in the order of printing.

    >>> lines()["1:7"].latex, lines()["3:15"].reading
    ('$\\\\xi_t \\\\leftarrow a_t - c_t$', ('R19',))
    """
    rows = (Line(**{**row, "reading": tuple(row.get("reading", ()))}) for row in _table()["line"])
    return {line.tag: line for line in rows}


@cache
def symbols() -> tuple[Symbol, ...]:
    """Return the notation table, by code name."""
    return tuple(Symbol(**row) for row in _table()["symbol"])


def tags(source: str) -> list[tuple[int, str]]:
    """Return ``(code line number, tag)`` of every tagged line of a source text.

    >>> tags("a = xi + g  # (d,)  # 1:5" + chr(10) + "c = a")
    [(1, '1:5')]
    """
    found = ((number, TAG.search(text)) for number, text in enumerate(source.splitlines(), 1))
    return [(number, match[1]) for number, match in found if match]
