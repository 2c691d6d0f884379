"""Pages about the paper: the printed lines beside the code, the readings, the tables, the notation."""

from __future__ import annotations

import ast
import html
import json
import re
import tomllib
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

from _build.text import code, fenced, rich, table

from efcp_ref import tracing
from efcp_ref.paper import printed, theory
from efcp_ref.paper.theory import memory, rank

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
PAPER = ROOT / "efcp_ref" / "paper"
PAGES = {
    "1": "alg-1",
    "2": "alg-2",
    "3": "alg-3",
    "4": "alg-4",
    "5": "alg-5",
    "6": "alg-6",
    "7": "alg-7",
    "S1": "ef-signsgd",
    "K": "top-k",
    "W": "woodbury",
}


def anchor(tag: str) -> str:
    """Return the anchor of a printed line.

    >>> anchor("S1:5")
    'alg-s1-line-5'
    """
    key, n = tag.split(":")
    return f"alg-{key.lower()}-line-{n}"


def line_link(tag: str, up: str = "..") -> str:
    """Return a link to a printed line, from a page that is ``up`` below the root of the site."""
    key, n = tag.split(":")
    named = {"K": "Top-k", "W": "section 2.2", "S1": "slides, Algorithm 1"}.get(key, f"Algorithm {key}")
    return f'<a href="{up}/algorithms/{PAGES[key]}/#{anchor(tag)}">{named}, line {n}</a>'


# ---- the listing: printed line and code line, neither typed here ---------------------------------------------------


@dataclass(frozen=True)
class CodeLine:
    """The tagged code of one printed line."""

    text: str
    note: str
    indent: int
    number: int
    function: str


@cache
def code_lines(file: str) -> dict[str, CodeLine]:
    """Return the code of every tag of one file of efcp_ref/paper."""
    path = PAPER / file
    source = path.read_text(encoding="utf-8")
    rows = source.splitlines()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    found = {}
    for statement in set(tracing._statements(str(path), source).values()):
        inside = [f for f in functions if f.lineno <= statement.number <= (f.end_lineno or 0)]
        function = max(inside, key=lambda f: f.lineno)
        row = rows[statement.number - 1]
        indent = (len(row) - len(row.lstrip()) - function.body[0].col_offset) // 4
        note = re.sub(r"\(?\bR\d+\)?", "", statement.note).strip(" ;,")
        found[statement.tag] = CodeLine(statement.code, note, max(0, indent), statement.number, function.name)
    return found


def listing(key: str) -> str:
    """Return the side-by-side table of one algorithm; every row has an anchor."""
    algorithm = printed.algorithms()[key]
    code_of = code_lines(algorithm.file)
    rows = [_row(line, code_of.get(line.tag)) for line in printed.lines().values() if line.key == key]
    where = "slides print" if algorithm.document == "slides" else "paper prints"
    return (
        f'<div class="listing" id="listing-{key.lower()}" tabindex="0" role="region" '
        f'aria-label="{html.escape(algorithm.title)}: printed lines and code">\n<table class="ruled">\n<thead><tr><th>#</th>'
        f"<th>As the {where} it</th><th>efcp_ref/paper/{algorithm.file}</th></tr></thead>\n<tbody>\n"
        + "\n".join(rows)
        + "\n</tbody></table></div>\n"
    )


WHY = {
    "inputs": "arguments",
    "header": "the function",
    "end": "the indentation ends",
    "comment": "a comment",
    "barrier": "lanes are one axis: nothing to wait for",
}


def _row(line: printed.Line, source: CodeLine | None) -> str:
    readings = "".join(
        f' <a class="reading" href="../../paper/readings/#{r.lower()}" title="reading {r}">{r}</a>'
        for r in line.reading
    )
    words = '<span class="ours">in words; the formula is ours</span>' if line.ours else ""
    comment = f'<span class="comment">{rich(line.comment)}</span>' if line.comment else ""
    paper = f'<span class="paper">{rich(line.latex) if line.latex else ""}{comment}{words}</span>{readings}'
    if source is None:
        right = f'<span class="source none">{WHY[line.why]}</span>'
    else:
        note = f'<span class="comment"># {html.escape(source.note)}</span>' if source.note else ""
        body = "<br>".join(code(part) for part in source.text.split("\n"))
        right = f'<span class="source" style="--indent:{source.indent}">{body}{note}</span>'
    here = anchor(line.tag)
    return (
        f'<tr id="{here}" data-n="{line.n}" class="{line.kind}"><td><a class="line" href="#{here}" '
        f'aria-label="line {line.n}">{line.n}</a></td><td>{paper}</td><td>{right}</td></tr>'
    )


def siblings(key: str) -> str:
    """Return links to the pages of the other algorithms."""
    names = {"S1": "EF-SignSGD", "K": "Top-k", "W": "Woodbury"}
    links = [
        f'<a href="../{page}/" aria-current="page">{names.get(k, f"Algorithm {k}")}</a>'
        if k == key
        else f'<a href="../{page}/">{names.get(k, f"Algorithm {k}")}</a>'
        for k, page in PAGES.items()
    ]
    return f'<nav class="siblings" aria-label="Algorithms">{"".join(links)}</nav>\n'


def player(key: str) -> str:
    """Return the place of the player; the page works without it."""
    return (
        f'<div class="player" data-trace="../../assets/traces/{key.lower()}.json" data-listing="listing-{key.lower()}">'
        "<p>The player needs JavaScript. The listing above is complete without it.</p></div>\n"
    )


def cost(key: str) -> str:
    """Return the functions of an algorithm's file with the cost that their docstrings state."""
    file = printed.algorithms()[key].file
    tree = ast.parse((PAPER / file).read_text(encoding="utf-8"))
    module = f"efcp_ref.paper.{file.removesuffix('.py')}"
    rows = []
    for node in tree.body:
        text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        match = re.search(r"^Cost: (.*?)(?:\n\n|\Z)", text or "", re.M | re.S)
        if match and isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            link = f'<a href="../../reference/api/{module}/#{module}.{node.name}"><code>{node.name}</code></a>'
            rows.append([link, rich(" ".join(match[1].split()))])
    return table(["function", "cost"], rows, "cost of every function", True) if rows else ""


def mistakes(key: str) -> str:
    """Return the known mistakes that the oracle plants in the lines of an algorithm."""
    from efcp_ref.oracle.mutants import MUTANTS

    planted: dict[tuple[str, str], list[str]] = {}  # a mistake that several operations can make stands there once
    for m in sorted(MUTANTS, key=lambda m: (m.line.split(":")[0], int(m.line.split(":")[1]), m.operation, m.name)):
        if m.line.split(":")[0] == key and m.line in printed.lines():
            planted.setdefault((m.line, m.text), []).append(m.operation)
    rows = [
        [
            f'<a href="#{anchor(line)}">{line.split(":")[1]}</a>',
            rich(text),
            ", ".join(f"<code>{operation}</code>" for operation in dict.fromkeys(operations)),
        ]
        for (line, text), operations in planted.items()
    ]
    return table(["line", "mistake", "operation"], rows, "known mistakes", True) if rows else "None is planted here.\n"


def readings_of(key: str) -> str:
    """Return the readings that change lines of one algorithm."""
    names = [r for line in printed.lines().values() if line.key == key for r in line.reading]
    rows = []
    for entry in readings():
        if entry["id"] in names:
            lines = [line for line in printed.lines().values() if line.key == key and entry["id"] in line.reading]
            at = ", ".join(f'<a href="#{anchor(line.tag)}">{line.n}</a>' for line in lines)
            link = f'<a href="../../paper/readings/#{entry["id"].lower()}">{entry["id"]}</a>'
            rows.append([link, at, rich(entry["printed"]), rich(entry["reading"])])
    head = ["", "line", "printed", "we take"]
    return table(head, rows, "readings", True) if rows else "Every line runs as printed.\n"


def algorithm_index() -> str:
    """Return the table of the algorithm pages."""
    rows = []
    for key, algorithm in printed.algorithms().items():
        lines = [line for line in printed.lines().values() if line.key == key]
        executed = sum(line.kind == "code" for line in lines)
        marks = sorted({r for line in lines for r in line.reading}, key=lambda r: int(r[1:]))
        name = {"K": "Top-k", "W": "Woodbury recursion", "S1": "EF-SignSGD (slides)"}.get(key, f"Algorithm {key}")
        rows.append(
            [
                f'<a href="{PAGES[key]}/">{name}</a>',
                html.escape(algorithm.title),
                str(len(lines)),
                str(executed),
                ", ".join(marks),
            ]
        )
    return table(["page", "printed title", "lines", "executable, all tagged", "readings"], rows, "algorithms", True)


# ---- readings ----------------------------------------------------------------------------------------------------


@cache
def readings() -> list[dict[str, object]]:
    """Return R1 to R42 from the one place where they are written."""
    return tomllib.loads((DOCS / "readings.toml").read_text(encoding="utf-8"))["reading"]


@cache
def test_sources() -> dict[str, tuple[str, str]]:
    """Return file and source of every test that is called after a reading."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        if "def test_R" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and re.match(r"test_R\d+_", node.name):
                found[node.name] = (str(path.relative_to(ROOT)), ast.get_source_segment(source, node) or "")
    return found


def reading_pages() -> str:
    """Return every reading: what is printed, the counterexample, what is taken, and the tests that show it."""
    parts = []
    lines = printed.lines().values()
    for entry in readings():
        name = str(entry["id"])
        at = [line_link(line.tag, "../..") for line in lines if name in line.reading]
        parts.append(f"## {name}: {entry['title']} {{ #{name.lower()} }}\n")
        rows = [
            ("Printed", entry["printed"]),
            ("Counterexample", entry.get("counterexample", "")),
            ("We take", entry["reading"]),
        ]
        body = "".join(f"<dt>{head}</dt><dd>{rich(str(text))}</dd>" for head, text in rows if text)
        if entry.get("released"):
            body += "<dt>Released code</dt><dd>The authors' code does what we take.</dd>"
        if at:
            body += f"<dt>Lines</dt><dd>{', '.join(at)}</dd>"
        parts.append(f'<dl class="entry">{body}</dl>\n')
        for test in entry["tests"]:
            file, source = test_sources().get(test, ("", ""))
            shown = "\n".join("    " + row for row in fenced(source, "py", file).splitlines())
            parts.append(f'??? example "`{test}`"\n\n{shown}\n')
    return "\n".join(parts)


# ---- tables ------------------------------------------------------------------------------------------------------


def memory_table() -> str:
    """Return appendix F, itemised."""
    d, m = 10**6, 1024

    def row(name: str, items: memory.Bytes, printed_ratio: str) -> list[str]:
        per, ratio = memory.per_parameter(items, d, m), memory.saving(4096, memory.per_parameter(items, d, m))
        parts = ", ".join(
            f"{item} {float(size / d):.2f} d" if item not in ("r_m", "rm") else item for item, size in items.items()
        )
        return [name, parts, f"{float(per):.2f} d + {4} m", f"{ratio:.2f}", printed_ratio]

    single = memory.sparse_mfac(m, d)
    half = memory.sparse_mfac(m, d, value_bytes=2)
    rows = [row("Sparse M-FAC, float32", single, "45.5"), row("Sparse M-FAC, bfloat16 values", half, "58.5")]
    bert = 4 * 1024 * 109_480_000
    extra = [
        [
            "Dense M-FAC on BERT-Base",
            "G 4 m d",
            f"{float(memory.gigabytes(bert)):.1f} GB",
            f"{float(memory.gibibytes(bert)):.1f} GiB",
            "450 GB and 417 GB (R32)",
        ]
    ]
    ggt = memory.sparse_ggt(100, d)
    ratio = memory.saving(400, memory.per_parameter(ggt, d, 100))
    rows.append(
        [
            "Sparse GGT, m = 100",
            ", ".join(ggt),
            f"{float(memory.per_parameter(ggt, d, 100)):.2f} d",
            f"{ratio:.2f}",
            "33.3",
        ]
    )
    head = ["what", "items, bytes", "total", "dense / sparse", "printed"]
    return table(head, rows + extra, "memory of appendix F", True)


def table_12() -> str:
    """Return Table 12: the density that takes as many entries as a rank."""
    shapes = theory.resnet20_shapes()
    rows = []
    for rho, given in rank.TABLE_12.items():
        ours = theory.percent(theory.density_of_rank(shapes, rho))
        literal = theory.percent(theory.density_of_rank(shapes, rho, "p+1"))
        halved = theory.percent(theory.density_of_rank_with_indices(shapes, rho))
        rows.append([str(rho), *(f"{share}\u00a0%" for share in (given, ours, literal, halved))])
    return table(
        ["rank", "printed", "recomputed", "the formula read literally (R31)", "equal bytes, indices counted (R42)"],
        rows,
        "Table 12",
    )


def figure_2() -> str:
    """Return the densities under Figure 2."""
    rows = []
    for kept, given in rank.FIGURE_2.items():
        share = Fraction(kept, rank.RESNET_18)
        rounded, cut = theory.percent(share), theory.percent(share, truncated=True)
        rows.append(
            [
                f"{kept:,}",
                *(f"{percent}\u00a0%" for percent in (given, rounded, cut)),
                "cut off" if rounded != given else "rounded",
            ]
        )
    return table(["k", "printed", "rounded", "cut off", "the paper"], rows, "densities of Figure 2")


def against_itself() -> str:
    """Return the places where the paper gives two figures for one thing."""
    rows = [
        [
            f'<a href="../readings/#{c.reading.lower()}">{c.reading}</a>',
            html.escape(c.what),
            html.escape(c.first_text),
            html.escape(c.second_text),
            html.escape(c.remark),
        ]
        for c in theory.PAPER_AGAINST_ITSELF
    ]
    return table(["", "what", "here", "there", "remark"], rows, "two figures for one thing", True)


def notation() -> str:
    """Return the notation table."""
    rows = [
        [
            f"<code>{s.code}</code>",
            rich(f"${s.paper}$") if s.paper else "",
            html.escape(s.meaning),
            html.escape(s.shape),
            html.escape(s.where),
        ]
        for s in printed.symbols()
    ]
    return table(["code", "paper", "meaning", "shape", "where"], rows, "notation", True)


def traces(folder: Path) -> int:
    """Record every run and write the player's files; return how many steps there are."""
    from _build.record import CASES, recorded

    folder.mkdir(parents=True, exist_ok=True)
    steps = 0
    for key in CASES:
        data = recorded(key)
        steps += sum(len(case["events"]) for case in data["cases"])
        (folder / f"{key.lower()}.json").write_text(json.dumps(data, separators=(",", ":")), encoding="utf-8")
    return steps
