"""The command line: ``efcp-ref check | list | trace``. Each command imports what it needs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from efcp_ref.oracle.judge import Progress

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=HELP)
@click.version_option(package_name="efcp-ref")
def main() -> None:
    """Executable paper and test oracle for EFCP (Error Feedback Can Accurately Compress Preconditioners).

    \b
    Example:
      efcp-ref check my_code.py
    """


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A line on stderr that tells what is being judged; nothing where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("importing the target") as status:
        yield lambda operation, done, total: status.update(f"{operation}: case {done + 1} of {total}")


def _print(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, allow_nan=False))


@main.command()
@click.argument("target")
@click.option("--operation", "-o", "operations", multiple=True, help="Judge this operation only; may be repeated.")
@click.option(
    "--cases", default=40, show_default=True, type=click.IntRange(1), help="Cases per operation and precision."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the cases.")
@click.option("--case", "only", type=click.IntRange(0), help="Judge this one case of the seed.")
@click.option("--dtype", type=click.Choice(["float64", "float32"]), help="Judge in this precision only.")
@click.option(
    "--timeout", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Seconds per case."
)
@click.option(
    "--memory",
    default=8.0,
    show_default=True,
    type=click.FloatRange(0),
    help="GiB of address space; 0: no limit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(
    target: str, operations: tuple[str, ...], cases: int, seed: int, only: int | None, dtype: str | None,
    timeout: float, memory: float, as_json: bool,
) -> None:  # fmt: skip
    """Judge TARGET: my_code.py, package.module, or either with :object.

    TARGET offers any of the contract's names (efcp-ref list) and needs no import of this package. It runs in a process
    of its own. Exit code: 0 passes, 1 fails, 2 wrong usage, 3 an error or nothing decided, 130 interrupted.

    \b
    Examples:
      efcp-ref check my_code.py
      efcp-ref check my_package.kernels:Fast --operation sp --operation lcg --cases 200
      efcp-ref check my_code.py --operation sp --seed 3 --case 17 --dtype float32
    """
    from efcp_ref.oracle.judge import check_target
    from efcp_ref.oracle.targets import UsageError

    try:
        with _progress() as progress:
            report = check_target(
                target, operations or None, cases, seed, timeout, memory, progress, only=only, dtype=dtype
            )  # fmt: skip
    except UsageError as why:
        raise click.UsageError(str(why)) from None
    from efcp_ref.oracle import terminal

    if as_json:
        _print(terminal.as_json(report))
    else:
        from rich.console import Console

        terminal.show(report, Console(width=None if sys.stdout.isatty() else 120, soft_wrap=not sys.stdout.isatty()))
    sys.exit(report.exit_code)


def _rows() -> list[dict[str, Any]]:
    from efcp_ref.contract import OPERATIONS, OPTIMIZERS

    rows: list[dict[str, Any]] = []
    for op in OPERATIONS.values():
        arguments = [f"{a.name} {a.shape}".strip() for a in op.arguments]
        results = [f"{r.name} {r.shape}".strip() for r in op.results] + [f"[{s.name} {s.shape}]" for s in op.stages]
        rows.append({"name": op.name, "kind": "operation", "arguments": arguments, "results": results,
                     "source": op.source, "line": op.line, "criterion": op.criterion})  # fmt: skip
    for it in OPTIMIZERS.values():
        rows.append({"name": it.name, "kind": "optimizer", "arguments": [p.name for p in it.parameters],
                     "results": ["step(g) -> u", f"[state() -> {', '.join(it.state)}]"],
                     "source": it.source, "line": it.line, "criterion": it.criterion})  # fmt: skip
    return rows


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("names", nargs=-1)
def list_(names: tuple[str, ...], as_json: bool) -> None:
    """List the operations: arguments, results, where the paper prints them, the inequality that judges them.

    \b
    Examples:
      efcp-ref list
      efcp-ref list sp lcg
      efcp-ref list --json
    """
    rows = _rows()
    for name in names:
        _known(name, [row["name"] for row in rows])
    rows = [row for row in rows if not names or row["name"] in names]
    if as_json:
        _print(rows)
        return
    for row in rows:
        call = f"{row['name']}({', '.join(row['arguments'])})"
        results = (
            "  " + "; ".join(row["results"]) if row["kind"] == "optimizer" else "  -> " + ", ".join(row["results"])
        )
        click.echo(
            f"{click.style(call, bold=True)}\n{results}\n  {row['source']}  [{row['line']}]\n  {row['criterion']}\n"
        )
    click.echo("Results in [brackets] are optional stages: offered, they are judged one by one.")


def _known(name: str, names: list[str]) -> None:
    if name in names:
        return
    import difflib

    close = difflib.get_close_matches(name, names, 3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"choose from {', '.join(names)}"
    raise click.UsageError(f"unknown operation {name!r}, {hint}")


@main.command()
@click.argument("name")
@click.option("--d", "d", default=6, show_default=True, type=click.IntRange(4), help="Dimension.")
@click.option("--steps", default=3, show_default=True, type=click.IntRange(1), help="Steps of an optimizer.")
@click.option("--depth", default=0, show_default=True, type=click.IntRange(0), help="Show the lines of inner steps, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole trace as JSON.")
def trace(name: str, d: int, steps: int, depth: int, as_json: bool) -> None:
    """Run NAME on a small example and show every line of the paper as it runs, and what changed.

    \b
    Examples:
      efcp-ref trace sparse_mfac --d 6 --steps 3
      efcp-ref trace sparse_mfac --d 6 --steps 3 --depth 2    (with Top-k, SP, LCG and section 2.2, line by line)
    """
    from efcp_ref import tracing
    from efcp_ref.contract import NAMES

    _known(name, list(NAMES))
    try:
        recorded = tracing.demo(name, d, steps)
    except (ValueError, TypeError) as why:
        raise click.UsageError(str(why)) from None
    if as_json:
        click.echo(recorded.to_json())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table("paper line", "code", "what changed", box=box.SIMPLE_HEAD, pad_edge=False)
    shown = tracing.table(recorded, depth)
    for row in shown:
        grid.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else 140).print(grid)
    if inner := len(recorded.events) - len(shown):
        deepest = max(event.depth for event in recorded.events)
        click.echo(f"{inner} lines of inner steps are not shown: --depth {deepest} shows them")
    if not recorded.events:
        click.echo(f"{name} runs no numbered line of its own; trace the optimizer that uses it")


if __name__ == "__main__":
    main()
