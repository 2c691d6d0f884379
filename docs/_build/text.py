"""Small pieces of HTML: LaTeX in text, highlighted code, tables."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

_MATH = re.compile(r"\$([^$]+)\$")


def rich(text: str) -> str:
    r"""Return text with math between dollars, ``\textbf{}`` and back-quoted code as HTML.

    >>> rich(r"\textbf{for} $a < b$ do `x`")
    '<strong>for</strong> <span class="arithmatex">\\(a &lt; b\\)</span> do <code>x</code>'
    >>> rich("``x`` and `y`")
    '<code>x</code> and <code>y</code>'
    """
    parts = []
    for number, part in enumerate(_MATH.split(text)):
        if number % 2:
            parts.append(f'<span class="arithmatex">\\({html.escape(part, quote=False)}\\)</span>')
        else:
            parts.append(_words(html.escape(part, quote=False)))
    return "".join(parts)


def _words(text: str) -> str:
    text = re.sub(r"\\textbf\{([^}]*)\}", r"<strong>\1</strong>", text).replace(r"\_", "_")
    return re.sub(r"(`{1,2})(.+?)\1", r"<code>\2</code>", text)


def code(text: str, language: str = "python") -> str:
    """Return source text as inline highlighted code."""
    lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    return f'<code class="highlight">{highlight(text, lexer, HtmlFormatter(nowrap=True)).rstrip(chr(10))}</code>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], label: str, stacked: bool = False) -> str:
    """Return a table of HTML cells that can be scrolled by keyboard where it is too wide.

    Stacked, a row is a paragraph on a phone, every cell below the other behind the head of its column.
    """
    cells = "".join(f"<th>{cell}</th>" for cell in head)
    named = [f' data-label="{html.escape(cell)}"' if stacked and cell else "" for cell in head]
    lines = ("".join(f"<td{name}>{cell}</td>" for name, cell in zip(named, row, strict=True)) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{html.escape(label)}">'
        f'<table class="ruled"{" data-stacked" if stacked else ""}>\n'
        f'<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n'
    )


def fenced(text: str, language: str = "", title: str = "") -> str:
    """Return text as a fenced block, its fence longer than any in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    head = f"{language}{f' title={title!r}' if title else ''}".replace("'", '"')
    return f"{fence}{head}\n{text.rstrip()}\n{fence}\n"
