"""Figures and tables by name: ``efcp-ref reproduce NAME`` computes one again, the same numbers every time.

A name is a claim of `efcp_ref.claims`. Claims on synthetic problems and closed forms are computed from scratch. Claims
about training read the runs that the package holds; with ``again`` the runs of that claim are trained anew, which takes
minutes. Runs of public packages are read in any case: ``python -m efcp_ref.claims.comparators`` makes those.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SEEDS = (0, 1, 2, 3, 4)
Say = Callable[[str], None]


class Item(NamedTuple):
    """One thing that can be reproduced."""

    name: str
    title: str
    kind: str  # "computed" or "from cached runs"
    figure: bool


class Result(NamedTuple):
    """What was reproduced."""

    name: str
    title: str
    verdict: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    conditions: tuple[tuple[str, float, float, bool], ...]  # text, left, right, met
    figure: Path | None


def items() -> list[Item]:
    """Return what there is.

    >>> [item.name for item in items()][:2]
    ['sparse-recovers-dense', 'feedback-makes-it-work']
    """
    from efcp_ref.claims.book import claims

    return [Item(c.id, c.title, "from cached runs" if c.trained else "computed", c.draw is not None) for c in claims()]


def reproduce(name: str, folder: Path | None = None, *, again: bool = False, say: Say = lambda text: None) -> Result:
    """Compute one claim's numbers and draw its figure.

    Args:
        name: one of `items()`.
        folder: where the figure is written, as SVG; none is written without it (and matplotlib is not needed).
        again: train the runs of a claim about training anew, into `again_file`, and use these.
        say: called with a line of progress.

    Returns:
        Verdict, table, conditions and the figure's path.

    Raises:
        KeyError: no such name.
        FileExistsError: the folder holds a file of the figure's name; nothing is computed.
        OSError: the folder cannot be made; nothing is computed.

    >>> reproduce("table-12").rows[0]
    ('rank 1', '2.98', '2.98', 'equal bytes: 1.49')
    """
    from efcp_ref.claims.book import claims
    from efcp_ref.claims.core import CLAIMS

    if name not in {claim.id for claim in claims()}:
        raise KeyError(f"nothing is called {name!r}, choose from {', '.join(item.name for item in items())}")
    claim = CLAIMS[name]
    file = folder / f"{name}.svg" if folder is not None and claim.draw is not None else None
    if file is not None and os.path.lexists(file):
        raise FileExistsError(f"{file.name} exists there, and is not overwritten; name another folder")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    measured = _measured_again(claim, say) if again and claim.trained else claim.measure(SEEDS)
    if file is not None:
        from efcp_ref.claims.figures import save

        assert claim.draw is not None
        save(claim.draw(measured), file)
    conditions = tuple((c.text, c.left, c.right, c.met) for c in measured.conditions)
    return Result(name, claim.title, measured.verdict, measured.columns, measured.rows, conditions, file)


def again_file() -> Path:
    """Return the file that runs are trained into: in the temporary folder, another one for every state of the code.

    >>> again_file().suffix
    '.jsonl'
    """
    import hashlib
    import tempfile

    root = Path(__file__).parent
    sources = [*root.glob("paper/**/*.py"), *root.glob("data/*"), root / "claims" / "methods.py"]
    digest = hashlib.sha256()
    for source in sorted(file for file in [*sources, root / "claims" / "train.py"] if file.is_file()):
        digest.update(source.read_bytes())
    return Path(tempfile.gettempdir()) / f"efcp_ref_runs_{digest.hexdigest()[:12]}.jsonl"


def _measured_again(claim: Any, say: Say) -> Any:
    """Train the runs that a claim needs, resuming what was begun, and measure the claim on these."""
    from efcp_ref.claims import heavy, trained

    names, file = trained.needed(claim), again_file()
    say(f"training anew into {file}; what it holds already is not trained twice")
    heavy.run(file=file, say=say, names=names)
    try:
        trained.use(file)
        return claim.measure(SEEDS)
    finally:
        trained.use(heavy.FILE)


def text(result: Result) -> str:
    """Return a result as lines of text.

    >>> print(text(reproduce("table-12")).splitlines()[0])
    table-12: A rank takes the memory of a density (Table 12) -- holds
    """
    rows = [result.columns, *result.rows]
    widths = [max(len(str(row[n])) for row in rows) for n in range(len(result.columns))]
    table = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    said = [
        f"  {'yes' if met else 'no ':3}  {what}   [{left:.4g} against {right:.4g}]"
        for what, left, right, met in result.conditions
    ]
    head = f"{result.name}: {result.title} -- {result.verdict}"
    return "\n".join([head, "", *table, "", *said, *([f"\nfigure: {result.figure}"] if result.figure else [])])


def as_dict(result: Result) -> dict[str, Any]:
    """Return a result ready for JSON."""
    return result._asdict() | {"figure": str(result.figure) if result.figure else None}


def everything(folder: Path, names: Sequence[str] = ()) -> list[Result]:
    """Reproduce all names, or some, with their figures."""
    return [reproduce(name, folder) for name in (names or [item.name for item in items()])]
