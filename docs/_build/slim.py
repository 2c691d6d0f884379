"""Make the built site smaller, without taking away anything that a reader sees, hears or finds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

_KEPT = re.compile(r"(<(pre|script|style|textarea)\b.*?</\2>)", re.S)
_MARKS = re.compile(r'<use [^>]*? style="([^"]*)"/>(?:<use [^>]*? style="\1"/>)+')
_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def slimmed(site: Path) -> None:
    """Remove source maps and the search's word lists of other languages; shorten pages, drawings and the index."""
    for path in site.rglob("*.map"):
        path.unlink()
        shown = path.with_suffix("")
        text = shown.read_text(encoding="utf-8")
        shown.write_text(re.sub(r"\n?(//|/\*)# sourceMappingURL=\S+( \*/)?", "", text), encoding="utf-8")
    shutil.rmtree(site / "assets" / "javascripts" / "lunr", ignore_errors=True)
    for path in site.rglob("*.html"):
        path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
    for path in site.rglob("*.svg"):
        path.write_text(drawing(path.read_text(encoding="utf-8")), encoding="utf-8")
    index = site / "search" / "search_index.json"
    index.write_text(searched(index.read_text(encoding="utf-8")), encoding="utf-8")


def page(text: str) -> str:
    r"""Return a page without indentation, its highlighted code in fewer spans.

    Names, blanks, operators and punctuation have the colour of the code around them (assets/extra.css). The arrow of a
    signature keeps its span: it is not broken over two lines. What mkdocstrings marks and no style sheet names is left
    out, too.

    >>> page('<p>\n    a  b</p><pre>  <span class="k">if</span> <span class="n">x</span><span class="p">:</span></pre>')
    '<p>\na b</p><pre>  <span class="k">if</span> x:</pre>'
    >>> page('<h3><span class="doc doc-object-name doc-class-name">A</span></h3>')
    '<h3>A</h3>'
    """
    parts = _KEPT.split(text)
    for n in range(0, len(parts), 3):
        parts[n] = re.sub(r" {2,}", " ", re.sub(r"\s*\n\s*", "\n", parts[n]))
    text = "".join(part for n, part in enumerate(parts) if n % 3 < 2)
    text = re.sub(r'<span class="doc doc-object-name[^"]*">([^<]*)</span>', r"\1", text)
    text = text.replace('<li class="doc-section-item field-body">', "<li>")
    return re.sub(r'<span class="[nwop]">(?!-&gt;)([^<]*)</span>', r"\1", text.replace("<span></span>", ""))


def drawing(text: str) -> str:
    r"""Return an SVG of matplotlib with hundredths of a point, without comments and metadata.

    Numbers below one are scales: they stay as they are.

    >>> drawing('<svg>\n <!-- a -->\n <g transform="scale(0.015625)"><path d="M 39.532586 94.5 \nL 39.5 3.0001 \n"/></g>')
    '<svg><g transform="scale(0.015625)"><path d="M39.53 94.5L39.5 3"/></g>'
    """
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<!DOCTYPE.*?>", "", text, flags=re.S)
    text = re.sub(r"<[^>]*>", lambda tag: _NUMBER.sub(_hundredths, tag[0]), text)
    text = re.sub(r'(?<= d=")[^"]*', lambda path: _tight(path[0]), text)
    text = re.sub(r'(?<= style=")[^"]*', lambda style: re.sub("([:;]) ", r"\1", style[0]), text)
    return _MARKS.sub(_grouped, re.sub(r">\s+<", "><", text))


def _grouped(marks: re.Match[str]) -> str:
    """Return marks of one look in a group that has the look."""
    look = f' style="{marks[1]}"'
    return f"<g{look}>{marks[0].replace(look, '')}</g>"


def _hundredths(number: re.Match[str]) -> str:
    value = float(number[0])
    return number[0] if abs(value) < 1 else f"{value:.2f}".rstrip("0").rstrip(".")


def _tight(path: str) -> str:
    return re.sub(r" ?([A-Za-z]) ?", r"\1", " ".join(path.split()))


def searched(text: str) -> str:
    """Return the search index, with the first paragraph alone of what the reference says of a name."""
    data = json.loads(text)
    for entry in data["docs"]:
        if entry["location"].startswith("reference/api/"):
            entry["text"] = re.sub(r"<pre>.*?</pre>\s*", "", entry["text"], flags=re.S).partition("</p>")[0]
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
