"""Reference pages from the code: API, command line, contract, criteria, the real output of a failure."""

from __future__ import annotations

import ast
import html
import inspect
import os
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from _build.paper import line_link
from _build.text import fenced, rich, table

ROOT = Path(__file__).parents[2]
SOLUTIONS = ("diagonal", "ggt", "kernels", "loop", "low_rank", "selection", "window")  # shown under learn/exercises
SKIPPED = (
    "efcp_ref.oracle.mutants.",
    "efcp_ref.data.make_digits",
    "efcp_ref.__main__",
    *(f"efcp_ref.exercises.{name}" for name in SOLUTIONS),
)
SECTIONS = {
    "efcp_ref.paper": "The executable paper",
    "efcp_ref.oracle": "The oracle",
    "efcp_ref.fast": "The fast twin",
    "efcp_ref.gpu": "The kernels",
    "efcp_ref.torch": "PyTorch",
    "efcp_ref.targets": "Ready-made targets",
    "efcp_ref.exercises": "Exercises",
    "efcp_ref.claims": "Claims",
    "efcp_ref.data": "Data",
}


@cache
def modules() -> tuple[str, ...]:
    """Return every public module, found on disk and not imported."""
    found = []
    for path in sorted((ROOT / "efcp_ref").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        private = any(part.startswith("_") for part in name.split("."))
        if not private and not name.startswith(SKIPPED):
            found.append(name)
    return tuple(found)


def page_of(module: str) -> str:
    """Return the page that documents a module: its own in `efcp_ref.paper`, else that of its package."""
    package = ROOT / Path(*module.split("."))
    if module.rpartition(".")[0] == "efcp_ref.paper" or package.is_dir() or module.count(".") < 2:
        return module
    return module.rpartition(".")[0]


def section(module: str) -> str:
    """Return the heading under which a module stands."""
    return next((title for name, title in SECTIONS.items() if module == name or module.startswith(name + ".")), "")


def source_of(module: str) -> Path:
    """Return the file of a module."""
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def api_pages(folder: Path) -> dict[str, list[str]]:
    """Write the pages of the public modules; return them by section."""
    folder.mkdir(parents=True, exist_ok=True)
    texts: dict[str, list[str]] = {}
    for module in modules():
        page = page_of(module)
        text = texts.setdefault(page, [f"# `{page}` {{ #{page} }}\n"])
        if page != module:
            text.append(f"## `{module.removeprefix(page + '.')}` {{ #{module} data-toc-label={module.rpartition('.')[2]} }}\n")
        typed = str(module.startswith("efcp_ref.paper")).lower()
        options = ["show_source: false", f"show_signature_annotations: {typed}", f"heading_level: {2 if page == module else 3}"]
        if not _defines(module):
            options.append("members: false")
        text.append(f"::: {module}\n    options:\n" + "".join(f"      {option}\n" for option in options))
        text.append(handed_on(module))
        if module == "efcp_ref.paper":
            text.append(api_index(module + ".", "../"))
    pages: dict[str, list[str]] = {}
    for page, text in texts.items():
        (folder / f"{page}.md").write_text("\n".join(text), encoding="utf-8")
        pages.setdefault(section(page), []).append(f"reference/api/{page}.md")
    return pages


def _defines(module: str) -> bool:
    """Whether a module defines anything public itself, or only gathers names from others."""
    body = ast.parse(source_of(module).read_text(encoding="utf-8")).body
    own = (node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef)))
    return any(not node.name.startswith("_") for node in own) or not source_of(module).name.startswith("__init__")


def handed_on(module: str) -> str:
    """Return links to the names that a package imports when they are first used: where they are documented.

    >>> handed_on("efcp_ref.oracle")[:72]
    'Names: [`BrokenTarget`](efcp_ref.oracle.md#efcp_ref.oracle.targets.Broke'
    """
    if "def __getattr__" not in source_of(module).read_text(encoding="utf-8"):
        return ""
    package = import_module(module)
    links = []
    for name in package.__all__:
        value = getattr(package, name)
        if (inspect.isclass(value) or inspect.isroutine(value)) and value.__module__ in modules():
            links.append(f"[`{name}`]({page_of(value.__module__)}.md#{value.__module__}.{name})")
    return f"Names: {', '.join(links)}.\n"


def api_index(below: str = "", up: str = "") -> str:
    """Return a table of the public modules, or of those whose names begin alike."""
    rows = []
    for module in (name for name in modules() if name.startswith(below)):
        text = ast.get_docstring(ast.parse(source_of(module).read_text(encoding="utf-8"))) or ""
        first = " ".join(text.split("\n\n")[0].split())
        rows.append([f'<a href="{up}{page_of(module)}/#{module}"><code>{module}</code></a>', rich(first)])
    return table(["module", "what it is"], rows, "modules")


# ---- command line ------------------------------------------------------------------------------------------------


def command_line() -> str:
    """Return the help of every command, from the program itself."""
    import click

    from efcp_ref.cli import main

    parts: list[str] = []

    def add(command: Any, names: list[str], parent: Any) -> None:
        context = click.Context(command, info_name=names[-1], parent=parent, terminal_width=80, max_content_width=80)
        title = " ".join(names)
        parts.append(f"## `{title}`\n\n{fenced(command.get_help(context), 'text')}")
        for name in command.list_commands(context) if isinstance(command, click.Group) else []:
            add(command.get_command(context, name), [*names, name], context)

    add(main, ["efcp-ref"], None)
    return "\n".join(parts)


def command_names() -> set[str]:
    """Return the names of the commands."""
    from efcp_ref.cli import main

    return set(main.commands)


# ---- contract and criteria ---------------------------------------------------------------------------------------


def contract_table() -> str:
    """Return the operations: arguments, results, where the paper prints them."""
    from efcp_ref.contract import OPERATIONS

    rows = []
    for op in OPERATIONS.values():
        arguments = ", ".join(f"<code>{a.name}</code> {html.escape(a.shape)}".strip() for a in op.arguments)
        results = ", ".join(f"<code>{r.name}</code> {html.escape(r.shape)}".strip() for r in op.results)
        stages = ", ".join(f"<em><code>{s.name}</code> {html.escape(s.shape)}</em>".strip() for s in op.stages)
        rows.append(
            [
                f"<code>{op.name}</code>",
                arguments,
                ", ".join(filter(None, (results, stages))),
                f"{html.escape(op.source)}<br>{line_link(op.line, '../..')}",
            ]
        )
    return table(["operation", "arguments", "results (stages in italics)", "source"], rows, "operations", True)


def optimizer_table() -> str:
    """Return the optimizers: parameters and state."""
    from efcp_ref.contract import OPTIMIZERS

    rows = [
        [
            f"<code>{it.name}</code>",
            ", ".join(f"<code>{p.name}</code>" for p in it.parameters),
            ", ".join(f"<code>{s}</code>" for s in it.state),
            f"{html.escape(it.source)}<br>{line_link(it.line, '../..')}",
        ]
        for it in OPTIMIZERS.values()
    ]
    return table(["optimizer", "constructor, by keyword", "keys of state()", "source"], rows, "optimizers", True)


def criteria() -> str:
    """Return how each operation is judged: the contract's inequality and the criterion's own words."""
    from efcp_ref.contract import OPERATIONS, OPTIMIZERS
    from efcp_ref.oracle.criteria import CRITERIA

    parts: list[str] = []
    told: set[Any] = set()
    if (ROOT / "docs" / "criteria.md").exists():
        parts.append("[Derivations, departures and measured figures](../criteria.md) stand on a page of their own.\n")
    for name, function in CRITERIA.items():
        it: Any = OPERATIONS.get(name) or OPTIMIZERS[name]
        if function in told:
            continue
        told.add(function)
        names = [other for other, same in CRITERIA.items() if same is function]
        title = ", ".join(f"`{n}`" for n in names) if len(names) < 4 else "Optimizers: replay"
        doc = inspect.cleandoc(function.__doc__ or "")
        module = function.__module__
        words = "".join(f"<p>{prose(part)}</p>\n" for part in doc.split("\n\n"))
        parts.append(
            f"## {title} {{ #{names[0].replace('_', '-')} }}\n\n"
            f'<p class="rule"><code>{html.escape(it.criterion)}</code></p>\n\n'
            f"Blamed when no stage says more: {line_link(it.line, '../..')}. In the words of the code, "
            f"[`{function.__name__}`](../reference/api/{page_of(module)}.md#{module}.{function.__name__}):\n\n{words}\n"
        )
        if len(names) > 3:
            parts.append(f"It judges {', '.join(f'`{n}`' for n in names)}.\n")
    return "\n".join(parts)


def prose(text: str) -> str:
    """Return a docstring's paragraph as HTML, its code between double or single back-quotes.

    >>> prose("``a < b`` by `f`")
    '<code>a &lt; b</code> by <code>f</code>'
    """
    return rich(" ".join(text.split()))


def run(*command: str, expected: tuple[int, ...] = (0,)) -> str:
    """Run a command of the package as a user would, and return what it printed.

    Raises:
        RuntimeError: it ended with another exit code.
    """
    environment = {
        **os.environ,
        "COLUMNS": "92",
        "NO_COLOR": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in expected:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}, expected {expected}\n{done.stdout}{done.stderr}"
        )
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())
