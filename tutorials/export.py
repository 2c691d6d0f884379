"""Execute tutorials in a real kernel and write, for each, a page, its pictures and a notebook.

    python tutorials/export.py OUT [NAME ...]

writes OUT/NN_name.md, OUT/NN_name-1.png ... and OUT/NN_name.ipynb. A cell that raises stops it, exit code 1. The page
has the alt text of every picture; the notebook keeps its outputs.
"""

from __future__ import annotations

import base64
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def tutorials() -> list[Path]:
    """Return the tutorials in order: NN_name.py."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def executed(source: Path) -> Any:
    """Return the notebook of one tutorial after a kernel has run it; a cell that raises is a CellExecutionError."""
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    where = {"metadata": {"path": str(HERE)}}
    told = {"timeout": 300, "startup_timeout": 300, "coalesce_streams": True}  # one output however often it is flushed
    NotebookClient(notebook, kernel_name="python3", resources=where, **told).execute()
    return notebook


def fenced(text: str, language: str = "") -> str:
    """Return text as a fenced block; the fence is longer than any in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def linked(text: str, ending: str) -> str:
    """Return text whose links to other tutorials, written NN_name.py, lead to their pages or notebooks.

    >>> linked("[next](01_dropped_gradient.py)", "md")
    '[next](01_dropped_gradient.md)'
    """
    return re.sub(r"\((\d\d_\w+)\.py\)", rf"(\1.{ending})", text)


class Page:
    """The Markdown of one tutorial; pictures are written as they come."""

    def __init__(self, out: Path, name: str) -> None:
        self.out, self.name = out, name
        self.parts: list[str] = []
        self.pictures = 0

    def add(self, cell: Any) -> None:
        """Add one cell and what it printed."""
        if cell.cell_type == "markdown":
            self.parts.append(linked(cell.source, "md"))
            return
        self.parts.append(fenced(cell.source, "python"))
        for output in cell.get("outputs", []):
            self.parts.append(self._output(output))

    def _output(self, output: Any) -> str:
        if output.output_type == "stream":
            return fenced(output.text, "text")
        data = output.data
        if "image/png" in data:
            self.pictures += 1
            file = f"{self.name}-{self.pictures}.png"
            (self.out / file).write_bytes(base64.b64decode(data["image/png"]))
            alt = output.metadata["image/png"]["alt"].replace("[", "(").replace("]", ")")
            return f"![{alt}]({file})"
        return data["text/html"] if "text/html" in data else fenced(data["text/plain"], "text")

    def text(self) -> str:
        """Return the page."""
        return "\n\n".join([*self.parts, f"[Download this page as a notebook]({self.name}.ipynb)"]) + "\n"


def export(source: Path, out: Path) -> None:
    """Write the page, the pictures and the notebook of one tutorial."""
    import nbformat

    notebook = executed(source)
    page = Page(out, source.stem)
    for cell in notebook.cells:
        page.add(cell)
    (out / f"{source.stem}.md").write_text(page.text(), encoding="utf-8")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same on every run
        cell.metadata.pop("execution", None)
        cell["source"] = linked(cell.source, "ipynb") if cell.cell_type == "markdown" else cell.source
    nbformat.write(notebook, out / f"{source.stem}.ipynb")


def main(arguments: Sequence[str]) -> None:
    """Export the tutorials that are named, or all."""
    if not arguments:
        sys.exit(__doc__)
    out, names = Path(arguments[0]), arguments[1:]
    out.mkdir(parents=True, exist_ok=True)
    chosen = [source for source in tutorials() if not names or source.stem in names]
    if unknown := set(names) - {source.stem for source in chosen}:
        sys.exit(f"no such tutorial: {', '.join(sorted(unknown))}; there are {', '.join(t.stem for t in tutorials())}")
    for source in chosen:
        began = time.monotonic()
        export(source, out)
        print(f"{source.stem}: {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
