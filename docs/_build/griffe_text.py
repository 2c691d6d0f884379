"""A Griffe extension: docstrings are plain text, an asterisk in a formula is an asterisk, and an example is code.

So is what click is told not to wrap, by a line that holds a backspace alone.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class PlainText(griffe.Extension):
    """Escape asterisks outside code, so that ``p2*...*ps`` is not taken for emphasis; put examples into fences."""

    def on_instance(self, *, obj: Any, **kwargs: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring and any(mark in obj.docstring.value for mark in ("*", ">>>", "\b", "::\n")):
            obj.docstring.value = marked(obj.docstring.value)


def marked(text: str) -> str:
    r"""Return a docstring as Markdown: an example ends at the next empty line.

    >>> marked("a*b\n\n>>> 2 * 3\n6\n\nc").split("\n\n")
    ['a\\*b', '```pycon\n>>> 2 * 3\n6\n```', 'c']
    >>> marked("A case::")
    'A case:'
    >>> marked("\b\nExample:\n  efcp-ref list *").splitlines()
    ['```text', 'Example:', '  efcp-ref list *', '```']
    """
    rows: list[str] = []
    fence = ""
    for line in [*text.splitlines(), ""]:
        if not fence and line.lstrip().startswith(">>>"):
            fence = line[: len(line) - len(line.lstrip())] + "```"
            rows.append(f"{fence}pycon")
        elif line.strip(" ") == "\b":
            fence = line.replace("\b", "```")
            rows.append(f"{fence}text")
            continue
        elif fence and not line.strip():
            rows.append(fence)
            fence = ""
        rows.append(line if fence else _escaped(line))
    return "\n".join(rows[:-1])


def _escaped(line: str) -> str:
    parts = re.split(r"(``.*?``|`[^`]*`|(?<![\w*])\*\w+\*(?![\w*]))", line)  # code, or one *word* of stress
    text = "".join(part if number % 2 else part.replace("*", r"\*") for number, part in enumerate(parts))
    return text[:-1] if text.endswith("::") else text
