"""A Griffe extension: docstrings are plain text, so an asterisk in a formula is an asterisk."""

from __future__ import annotations

import re
from typing import Any

import griffe


class PlainAsterisks(griffe.Extension):
    """Escape asterisks outside code in every docstring, so that ``p2*...*ps`` is not taken for emphasis."""

    def on_instance(self, *, obj: Any, **kwargs: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring and "*" in obj.docstring.value:
            obj.docstring.value = "\n".join(_escaped(line) for line in obj.docstring.value.splitlines())


def _escaped(line: str) -> str:
    if line.lstrip().startswith((">>>", "...")):
        return line
    parts = re.split(r"(``.*?``|`[^`]*`)", line)
    return "".join(part if number % 2 else part.replace("*", r"\*") for number, part in enumerate(parts))
