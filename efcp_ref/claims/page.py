"""Writes the page of claims and its figures: ``python -m efcp_ref.claims.page docs``. No number on it is typed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from efcp_ref.claims.book import claims
from efcp_ref.claims.closed_forms import NOT_HERE
from efcp_ref.claims.core import HOLDS, NOT, PART, SEEDS, UNTESTABLE, Claim, Measured
from efcp_ref.claims.figures import save

FIGURES = Path("assets") / "claims"
HEAD = """# The paper's claims, put to the test

Each claim of the paper and of the slides that can be tested on a small computer is tested here, by this package's
own code. A claim has a quotation, a verdict, the numbers over five seeds with their spread, a figure, and the
inequalities that decide the verdict. Every inequality has a margin. A test holds every verdict.

The data are the UCI optical digits ({train} training, {validation} validation and {test} test images). The network has
{d:,} parameters. One test image is {point:.2f} points of accuracy, and the good methods differ by a few images. So the
training loss says more than the accuracy, and some claims cannot be tested here at all. They are listed at the end.

Nothing here was predicted blindly. The settings, and the factors in the inequalities, were fixed after trial runs on
the same data. Where a whole set-up was replaced after its results had been seen, the section says so.

"""
TAIL = """
## Not testable at this scale

These need data or machines that a small test does not have. The paper's figures are given, with what would be needed.

"""


def table(columns: tuple[str, ...], rows: Any) -> str:
    """Return a Markdown table.

    >>> print(table(("a", "b"), [(1, 2)]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [columns, *rows]]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])


def _sizes() -> dict[str, Any]:
    from efcp_ref.data import MLP, split

    sizes = {name: len(part) for name, part in split()._asdict().items()}
    return sizes | {"d": MLP.d, "point": 100 / sizes["test"]}


def section(claim: Claim, measured: Measured) -> str:
    """Return the section of one claim."""
    picture = f"\n![{claim.alt}]({(FIGURES / claim.id).as_posix()}.svg)\n" if claim.draw else ""
    decided = table(
        ("what decides", "left", "right", "met"),
        [(c.text, f"{c.left:.3g}", f"{c.right:.3g}", "yes" if c.met else "no") for c in measured.conditions],
    )
    kind = "five seeds, cached runs" if claim.trained else "computed anew, five seeds"
    return (
        f"## {claim.title} {{ #{claim.id} }}\n\n**Verdict: {measured.verdict}.**\n\n"
        f'> "{claim.quote}"\n>\n> {claim.source}\n\n'
        f"{claim.words.format(**measured.data.get('say', {}))}\n"
        + (f"\n**Replaced after a first result:** {claim.replaced}\n" if claim.replaced else "")
        + f"{picture}\n{table(measured.columns, measured.rows)}\n\n"
        + (f"{decided}\n\n" if measured.conditions else "")
        + f"Again: `efcp-ref reproduce {claim.id}` ({kind}). Test: `tests/claims/test_claims.py`, `{claim.id}`.\n\n"
    )


def page(found: list[tuple[Claim, Measured]]) -> str:
    """Return the whole page."""
    counts = {verdict: sum(m.verdict == verdict for _, m in found) for verdict in (HOLDS, PART, NOT, UNTESTABLE)}
    said = ", ".join(f"{verdict}: {count}" for verdict, count in counts.items() if count)
    short = table(("claim", "verdict"), [(f"[{c.title}](#{c.id})", m.verdict) for c, m in found])
    sections = "".join(section(claim, measured) for claim, measured in found)
    needs = table(("what", "the paper's figures", "what would be needed"), NOT_HERE)
    head = HEAD.format(**_sizes())
    return f"{head}{len(found)} claims: {said}.\n\n{short}\n\n{sections}{TAIL.lstrip()}{needs}\n"


def write(docs: Path) -> list[str]:
    """Write the page and its figures below a folder; return the claims whose verdict is not the stated one."""
    found = [(claim, claim.measure(SEEDS)) for claim in claims()]
    for claim, measured in found:
        if claim.draw is not None:
            save(claim.draw(measured), docs / FIGURES / f"{claim.id}.svg")
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "claims.md").write_text(page(found))
    return [claim.id for claim, measured in found if measured.verdict != claim.verdict]


if __name__ == "__main__":
    wrong = write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
    sys.exit(f"verdict not as stated: {', '.join(wrong)}" if wrong else 0)
