"""The command line: ``efcp-ref check | diff | list | replay | trace | ...``; each command imports what it needs."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from efcp_ref.oracle.judge import Progress, Report

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Folder(click.Path):
    """A folder, by a name that is not empty: an unset variable is not the folder that one is in."""

    def __init__(self) -> None:
        """No file, and a `Path`."""
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty name."""
        if value == "":
            self.fail("'' is no folder", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = Folder()
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what was found cannot be written down
MOST_CASES = 1_000_000  # of one seed; the cases of the paper's sizes have the numbers from there on


class Count(click.ParamType):
    """A whole number of at least 1, which may be written 1e6."""

    name = "integer"

    def __init__(self, most: int = 10**12) -> None:
        """Take the largest one."""
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return it as an integer."""
        try:
            count = int(value) if str(value).isdigit() else float(value)
        except ValueError:
            self.fail(f"{value!r} is no number", param, ctx)
        if not 1 <= count <= self.most or count != int(count):
            self.fail(f"{value} is not in the range 1<=x<={self.most:,} of whole numbers", param, ctx)
        return int(count)


class Amount(click.ParamType):
    """A finite number of a range; zero, too, where it stands for no limit."""

    name = "number"

    def __init__(self, low: float, high: float, zero: bool = False) -> None:
        """Take the range."""
        self.low, self.high, self.zero = low, high, zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return it as a float."""
        try:
            amount = float(value)
        except ValueError:
            self.fail(f"{value!r} is no number", param, ctx)
        if not (self.low <= amount <= self.high or (self.zero and amount == 0)):  # nan is in no range
            none = ", or 0 for no limit" if self.zero else ""
            self.fail(f"{value} is not in the range {self.low:g}<=x<={self.high:g}{none}", param, ctx)
        return amount


class Commands(click.Group):
    """The commands; one that is interrupted, or whose output finds no room, ends with a code that is no verdict."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run one; exit code 3 where its output cannot be written."""
        from efcp_ref.oracle.lifeline import open_standard

        open_standard()
        try:
            return super().main(*args, **kwargs)
        except OSError as why:
            if why.errno not in FULL:
                raise
            click.echo(f"Error: cannot write {why.filename or 'the output'}: {why.strerror}", err=True)
        with suppress(OSError, ValueError):  # what is left in the buffer must not fail again at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(3)

    def invoke(self, ctx: click.Context) -> Any:
        """Run one; exit code 130 where it is interrupted."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(130)


@click.group(cls=Commands, context_settings=HELP)
@click.version_option(package_name="efcp-ref")
def main() -> None:
    """Executable paper and test oracle for EFCP (Error Feedback Can Accurately Compress Preconditioners).

    \b
    Example:
      efcp-ref check my_code.py
    """


@contextmanager
def _progress(begun: str = "importing the target", what: str = "case") -> Iterator[Progress | None]:
    """A line on stderr that tells what is being judged; nothing where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status(begun) as status:
        yield lambda operation, done, total: status.update(f"{operation}: {what} {min(done + 1, total)} of {total}")


def _print(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, allow_nan=False))


@main.command()
@click.argument("target", required=False)
@click.option("--command", help="Judge the process that this command starts; it speaks JSON lines.")
@click.option("--outputs", type=FOLDER, help="Judge the .npy files that a program left in this folder.")
@click.option("--vectors", type=FOLDER, help="The bundle that the outputs belong to; default: the same folder.")
@click.option("--operation", "-o", "operations", multiple=True, help="Judge this operation only; may be repeated.")
@click.option(
    "--cases", default=40, show_default=True, type=Count(MOST_CASES), help="Cases per operation and precision."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the cases.")
@click.option("--case", "only", type=click.IntRange(0), help="Judge this one case of the seed.")
@click.option("--dtype", type=click.Choice(["float64", "float32"]), help="Judge in this precision only.")
@click.option(
    "--timeout",
    default=10.0,
    show_default=True,
    type=Amount(1e-3, 1e6),
    help="Seconds per case; a command has 30 s to start, or this if more.",
)
@click.option(
    "--memory",
    default=8.0,
    show_default=True,
    type=Amount(0.25, 1e6, zero=True),
    help="GiB of address space; 0: no limit.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where efcp_ref.gpu runs; a GPU where there is one.")
@click.option("--report", "folder", type=FOLDER, help="Write report.jsonl, junit.xml, summary.md, index.html there.")
@click.option("--workers", type=int, help="Judge TARGET in 2, 4 or 8 processes, each with gradients of its own.")
@click.option("--jobs", type=click.IntRange(1), help="Local processes; default: two where there are many cases.")
@click.option("--dask", metavar="ADDRESS", help="Judge on this Dask cluster.")
@click.option("--certify", is_flag=True, help="Enclose every reference value by rationals or balls: slower.")
@click.option("--fresh", is_flag=True, help="Start over where --report holds an unfinished campaign.")
@click.option("--large", is_flag=True, help="Judge TARGET at the paper's sizes instead: minutes, some GiB.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(
    target: str | None, command: str | None, outputs: Path | None, vectors: Path | None, operations: tuple[str, ...],
    cases: int, seed: int, only: int | None, dtype: str | None, timeout: float, memory: float, device: str | None,
    folder: Path | None, workers: int | None, jobs: int | None, dask: str | None, certify: bool, fresh: bool,
    large: bool, as_json: bool,
) -> None:  # fmt: skip
    """Judge TARGET: my_code.py, package.module, or either with :object; or a process; or files.

    TARGET offers any of the contract's names (efcp-ref list) and needs no import of this package. It runs in a process
    of its own. Exit code: 0 passes, 1 fails, 2 wrong usage, 3 an error or nothing decided, 130 interrupted.

    \b
    Examples:
      efcp-ref check my_code.py
      efcp-ref check my_package.kernels:Fast --operation sp --operation lcg --cases 200
      efcp-ref check my_code.py --operation sp --seed 3 --case 17 --dtype float32
      efcp-ref check --command './mine --fast'
      efcp-ref check --outputs results --vectors vectors/v1
      efcp-ref check my_code.py --certify
      efcp-ref check my_distributed.py --workers 4
      efcp-ref check my_code.py --cases 1e6 --jobs 8 --report overnight    (again after a kill: it goes on)
    """
    _consistent(target, command, outputs, vectors, only, folder, fresh, large)
    if device and target:
        memory = _on_device(device, target, memory)
    if certify:
        _certifiable(large)
    with _usage(), _progress() as progress:
        if outputs is not None:
            from efcp_ref.oracle.report.run import check_files

            _show(check_files(outputs, vectors, operations or None, only=only, folder=folder, certify=certify), as_json)
        if large:
            _large(target, operations, seed, dtype, progress, as_json)
        if workers is not None:
            from efcp_ref.oracle.report.run import check_together

            if target is None or jobs or dask or fresh:
                raise click.UsageError("--workers goes with TARGET, and not with --jobs, --dask or --fresh")
            together = check_together(
                target, workers, operations or None, cases, seed, folder=folder, timeout=timeout, memory=memory,
                only=only, dtype=dtype, progress=progress, certify=certify,
            )  # fmt: skip
            _show(together, as_json)
        from efcp_ref.oracle.chunks import Door
        from efcp_ref.oracle.report.run import check

        report = check(
            Door(str(command if target is None else target), timeout, memory, command=target is None, certify=certify),
            operations or None, cases, seed, folder=folder, jobs=jobs, dask=dask, fresh=fresh, only=only, dtype=dtype,
            progress=progress,
        )  # fmt: skip
    _show(report, as_json)


def _consistent(
    target: str | None, command: str | None, outputs: Path | None, vectors: Path | None, only: int | None,
    folder: Path | None, fresh: bool, large: bool,
) -> None:  # fmt: skip
    """Refuse options that would have no effect."""
    if sum(door is not None for door in (target, command, outputs)) != 1:
        raise click.UsageError("name one of TARGET, --command and --outputs")
    if vectors is not None and outputs is None:
        raise click.UsageError("--vectors goes with --outputs")
    if fresh and folder is None:
        raise click.UsageError("--fresh goes with --report")
    if large and only is not None:
        raise click.UsageError("--large judges all of the large cases; --case alone judges one of them")
    for door, given in (("--outputs", outputs is not None), ("--command", command is not None), ("--large", large)):
        _without_effect(door if given else "")
    _one_case(only)


SILENT = {  # options of `check` that a door or a choice leaves without effect
    "": (),
    "--outputs": ("cases", "seed", "dtype", "timeout", "memory", "device", "workers", "jobs", "dask"),
    "--command": ("device",),
    "--large": ("cases", "timeout", "memory", "folder", "workers", "jobs", "dask"),
}


def _without_effect(door: str) -> None:
    """Refuse what was asked for and would do nothing."""
    context = click.get_current_context()
    given = [n for n in SILENT[door] if context.get_parameter_source(n) is not click.core.ParameterSource.DEFAULT]
    if given:
        options = {p.name: p.opts[0] for p in context.command.params}
        raise click.UsageError(f"{options[given[0]]} has no effect with {door}: leave it out")


def _one_case(only: int | None) -> None:
    """Refuse a number of cases beside the one case that was asked for."""
    given = click.get_current_context().get_parameter_source("cases")
    if only is not None and given is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError("--case is one case: leave --cases out")


def _certifiable(large: bool = False) -> None:
    from efcp_ref.oracle.certify import needed

    if large:
        raise click.UsageError("--certify does not go with --large: those cases are too large to enclose")
    try:
        needed()
    except ModuleNotFoundError as why:
        raise click.UsageError(str(why)) from None


def _large(
    target: str | None, operations: tuple[str, ...], seed: int, dtype: str | None, progress: Progress | None,
    as_json: bool,
) -> NoReturn:  # fmt: skip
    from efcp_ref.oracle.large import check_large

    if target is None:
        raise click.UsageError("--large needs a TARGET")
    _show(check_large(target, operations or None, seed, dtype, progress=progress), as_json)


@main.command()
@click.argument("figures", nargs=-1)
def bench(figures: tuple[str, ...]) -> None:
    """Measure FIGURES of efcp_ref.fast side by side on this machine; default all. Needs a checkout and PyTorch.

    Writes benchmarks/results/FIGURE.json with the command and the machine; an unknown name lists them all. Ctrl-C keeps
    the figures that are measured, and the same command goes on with the others.

    \b
    Examples:
      efcp-ref bench products top_k
      efcp-ref bench
    """
    import subprocess

    script = Path(__file__).parents[1] / "benchmarks" / "bench.py"
    if not script.exists():
        raise click.UsageError("benchmarks/ is not beside the package: run it in a checkout of the repository")
    with subprocess.Popen([sys.executable, str(script), *figures]) as running:
        while True:
            try:
                sys.exit(running.wait())
            except KeyboardInterrupt:  # the script has got it, too, and says where it goes on
                continue


@main.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(before: Path, after: Path, as_json: bool) -> None:
    """Compare two reports: new failures, operations that were lost, fixed ones, larger ratios, slower operations.

    Exit code: 1 where anything fails AFTER that did not fail BEFORE, or was judged BEFORE and is not AFTER; else 0.

    \b
    Example:
      efcp-ref diff reports/main reports/branch
    """
    from efcp_ref.oracle.report.diff import difference, read

    with _usage():
        found = difference(read(before), read(after))
    if as_json:
        _print(found.as_json())
    else:
        click.echo("\n".join(found.lines()))
    sys.exit(found.exit_code)


@contextmanager
def _usage() -> Iterator[None]:
    """What was asked for does not exist, or cannot be read or written: exit code 2, in words."""
    from efcp_ref.oracle.targets import UsageError

    try:
        yield
    except UsageError as why:
        raise click.UsageError(str(why)) from None
    except BrokenPipeError:
        raise
    except OSError as why:
        if why.errno in FULL:
            raise
        raise click.UsageError(f"{why.filename or 'a file'}: {why.strerror or why}") from None


def _show(report: Report, as_json: bool) -> NoReturn:
    """Print a report and exit with its code."""
    from efcp_ref.oracle import terminal

    if as_json:
        _print(terminal.as_json(report))
    else:
        from rich.console import Console

        terminal.show(report, Console(width=None if sys.stdout.isatty() else 120, soft_wrap=not sys.stdout.isatty()))
    sys.exit(report.exit_code)


def _on_device(device: str, target: str, memory: float) -> float:
    """Tell the target's process where to run, and compile what it needs; return its limit of address space."""
    os.environ["EFCP_DEVICE"] = device
    if target.partition(":")[0] == "efcp_ref.gpu":
        from efcp_ref.gpu.device import prepare

        try:
            prepare(device)
        except (ImportError, RuntimeError) as why:
            raise click.UsageError(str(why)) from None
    return 0.0 if device == "cuda" else memory  # a GPU's driver reserves far more addresses than it uses


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
@click.option("--operation", "-o", "operations", multiple=True, help="Mistakes in this operation; may be repeated.")
@click.option("--cases", default=40, show_default=True, type=Count(MOST_CASES), help="Cases per mistake and precision.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the cases.")
@click.option(
    "--seeds", default=1, show_default=True, type=click.IntRange(1), help="Seeds in which each mistake is to be named."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def selftest(operations: tuple[str, ...], cases: int, seed: int, seeds: int, as_json: bool) -> None:
    """Judge the oracle: every known mistake against every criterion and tier, and whether the diagnosis names it.

    Exit code 1 if fewer than 97 % are caught, a survivor has no stated reason, or a mistake is named in fewer than 80 %
    of its runs; 0 otherwise.

    \b
    Examples:
      efcp-ref selftest
      efcp-ref selftest -o sp -o lcg --cases 10
      efcp-ref selftest --seeds 20 --json
    """
    from efcp_ref.contract import NAMES
    from efcp_ref.oracle import selftest as own

    for name in operations:
        _known(name, list(NAMES))
    with _progress("preparing", "mistake") as progress:
        found, seconds = own.run(operations or None, cases, seed, seeds, progress)
    if as_json:
        _print(own.report(found, cases, seed, seeds, seconds))
    else:
        click.echo(own.text(found, seconds))
    sys.exit(0 if own.passed(found) else 1)


@main.command()
@click.argument("name")
@click.option("--d", "d", default=6, show_default=True, type=click.IntRange(4, 256), help="Dimension.")
@click.option("--steps", default=3, show_default=True, type=click.IntRange(1, 100), help="Steps of an optimizer.")
@click.option("--depth", default=0, show_default=True, type=click.IntRange(0), help="Show lines of inner steps, too.")
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
    for number, row in enumerate(shown):
        if number and (row.line, row.code) == shown[0][:2]:
            grid.add_section()  # the next step
        grid.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else 140).print(grid)
    if inner := len(recorded.events) - len(shown):
        deepest = max(event.depth for event in recorded.events)
        click.echo(f"{inner} lines of inner steps are not shown: --depth {deepest} shows them")
    if not recorded.events:
        click.echo(f"{name} runs no numbered line of its own; trace the optimizer that uses it")


@main.command()
@click.argument("folder", type=FOLDER)
@click.option("--operation", "-o", "operations", multiple=True, help="Write this operation only; may be repeated.")
@click.option("--check", "compare", is_flag=True, help="Write nothing: compare the folder with what would be written.")
def vectors(folder: Path, operations: tuple[str, ...], compare: bool) -> None:
    """Write the bundle of exact cases into FOLDER: the same bits on every machine.

    A program writes its results to OPERATION/NUMBER/out/NAME.npy; `efcp-ref check --outputs` judges them.

    \b
    Examples:
      efcp-ref vectors my_vectors
      efcp-ref vectors vectors/v1 --check
    """
    from efcp_ref.oracle import vectors as bundles

    with _usage():
        if not compare:
            click.echo(f"{bundles.write(folder, operations or None)} cases in {folder}")
            return
        different = bundles.differences(folder, operations or None)
    for name in different:
        click.echo(name)
    click.echo(f"{len(different)} files differ", err=True)
    sys.exit(1 if different else 0)


@main.command()
@click.argument("operation")
@click.option("--cases", default=100, show_default=True, type=Count(MOST_CASES), help="How many.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the cases.")
@click.option("--case", "only", type=click.IntRange(0), help="Write this one case of the seed.")
@click.option("--dtype", default="float64", show_default=True, type=click.Choice(["float64", "float32"]))
@click.option("--decimal", is_flag=True, help="Floats with 17 decimal digits instead of hexadecimal ones.")
def gen(operation: str, cases: int, seed: int, only: int | None, dtype: str, decimal: bool) -> None:
    """Write cases of OPERATION as text, for a program without a JSON library.

    \b
    Example:
      efcp-ref gen sp --cases 100 | ./mine | efcp-ref verify sp --cases 100
    """
    from efcp_ref.oracle import textmode

    _one_case(only)
    with _usage():
        for case in textmode.generated(operation, cases, seed, dtype, only):
            click.echo(textmode.text_of(case, decimal), nl=False)


@main.command()
@click.argument("operation")
@click.option("--cases", type=Count(MOST_CASES), help="How many were generated; a program that ended early is noticed.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify(operation: str, cases: int | None, as_json: bool) -> None:
    """Judge the text on standard input: what a program wrote on the cases of `efcp-ref gen`.

    \b
    Example:
      efcp-ref gen sp --cases 100 | ./mine | efcp-ref verify sp --cases 100
    """
    from efcp_ref.oracle import textmode
    from efcp_ref.oracle.lifeline import CLOSED

    if 0 in CLOSED:
        click.echo("Error: standard input is closed, there is nothing to read", err=True)
        sys.exit(2)
    with _usage():
        report = textmode.verify(operation, sys.stdin.buffer, cases)
    _show(report, as_json)


@main.command()
@click.argument("dump", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--start", default=1, show_default=True, type=Count(), help="The first step to judge.")
@click.option("--stop", type=Count(), help="The last one; default: all.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw a free run's distance: a new SVG or PNG."
)
@click.option("--certify", is_flag=True, help="Enclose every reference value by rationals or balls: slower.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def replay(dump: Path, start: int, stop: int | None, plot: Path | None, certify: bool, as_json: bool) -> None:
    """Judge a training run that was dumped, each step from the state that the target left before it.

    \b
    In the training loop:
      from efcp_ref.oracle.dump import Dump
      with Dump("run.efcp", "sparse_mfac", d=d, m=m, lam=lam, block_size=size, density=density) as dump:
          ...; dump.step(g, u, optimizer.state())

    Exit code: 0 passes, 1 a step fails, 2 wrong usage, 3 an error or nothing decided, 130 interrupted.

    \b
    Examples:
      efcp-ref replay run.efcp
      efcp-ref replay run.efcp --start 700 --stop 800 --plot distance.svg
    """
    from efcp_ref.oracle import replay as replaying
    from efcp_ref.oracle.hostile import Hostile

    if stop is not None and stop < start:
        raise click.UsageError(f"--start {start} lies behind --stop {stop}: no step is left to judge")
    if plot:
        _picture(plot)
    if certify:
        _certifiable()
    try:
        found = replaying.replay(dump, start, stop, certified=certify)
        with _usage():
            words = replaying.plot(found, replaying.free_run(dump, stop), plot) if plot else ""
    except Hostile as why:
        raise click.UsageError(replaying.refusal(dump, why)) from None
    except ModuleNotFoundError as why:
        raise NoFigure(why.name) from None
    if as_json:
        _print(replaying.as_json(found) | ({"plot": str(plot), "alt": words} if plot else {}))
    else:
        click.echo(replaying.text(found))
        click.echo(f"{plot}: {words}" if plot else "", nl=bool(plot))
    sys.exit(found.exit_code)


class NoFigure(click.ClickException):
    """What draws the figure is not installed: exit code 3."""

    exit_code = 3

    def __init__(self, name: str | None) -> None:
        """Take the name of the package."""
        hint = f"pip install {name}, or pip install 'efcp-ref[tutorials]', which has it"
        super().__init__(f"{name} is not installed, the figure needs it: {hint}")


def _picture(file: Path) -> None:
    """Refuse a figure that cannot be drawn, or that would take the place of a file, before any step is judged."""
    from importlib.util import find_spec

    if file.suffix.lower() not in (".svg", ".png"):
        raise click.UsageError(f"--plot {file}: the name must end in .svg or .png")
    if os.path.lexists(file):
        raise click.UsageError(f"--plot {file}: the file exists, and is not overwritten; name a new one")
    if not file.parent.is_dir():
        raise click.UsageError(f"--plot {file}: there is no folder {file.parent}")
    if find_spec("matplotlib") is None:
        raise NoFigure("matplotlib")


@main.command()
@click.argument("name", required=False)
@click.option("--list", "listed", is_flag=True, help="List what can be reproduced.")
@click.option("--out", type=FOLDER, help="Folder for the figure.")
@click.option("--again", is_flag=True, help="Train the runs of NAME anew: minutes, resumed where it stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reproduce(name: str | None, listed: bool, out: Path | None, again: bool, as_json: bool) -> None:
    """Reproduce a figure or table of the paper by NAME: its numbers, the verdict, and with --out its figure.

    \b
    Examples:
      efcp-ref reproduce --list
      efcp-ref reproduce table-12
      efcp-ref reproduce density-threshold --out figures
    """
    from efcp_ref import reproduce as room

    items = room.items()
    if listed or name is None:
        if as_json:
            _print([item._asdict() for item in items])
            return
        width = max(len(item.name) for item in items)
        for item in items:
            click.echo(f"{item.name:{width}}  {item.title}  [{item.kind}{', figure' if item.figure else ''}]")
        return
    if name not in {item.name for item in items}:
        import difflib

        close = difflib.get_close_matches(name, [item.name for item in items], 3)
        hint = f", did you mean {' or '.join(close)}?" if close else ""
        raise click.UsageError(f"nothing is called {name!r}{hint} (efcp-ref reproduce --list)")
    with _usage():
        try:
            result = room.reproduce(name, out, again=again, say=lambda line: click.echo(line, err=True))
        except FileExistsError as why:
            raise click.UsageError(f"--out {out}: {why}") from None
        except ModuleNotFoundError as why:
            raise NoFigure(why.name) from None
    if as_json:
        _print(room.as_dict(result))
    else:
        click.echo(room.text(result))


if __name__ == "__main__":
    main()
