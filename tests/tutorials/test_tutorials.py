"""Every tutorial runs, is short, says what the reader will be able to do, and asserts every number that it prints."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tutorials"
TUTORIALS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
SECONDS = 15.0  # of one core
each = pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)


@functools.cache
def cells(path):
    return [(cell.cell_type, cell.source) for cell in jupytext.read(path, fmt="py:percent").cells]


def prose(path):
    return [text for kind, text in cells(path) if kind == "markdown"]


def test_there_are_all_thirteen():
    assert [path.stem[:2] for path in TUTORIALS] == [f"{n:02}" for n in range(13)]


@each
def test_runs_as_a_script_on_one_core(path, tmp_path):
    """Time of the processor, not of the clock: other tests may run beside it."""
    alone = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, **alone}
    run = subprocess.run(
        [sys.executable, str(path)], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert run.stderr == ""
    assert not any(tmp_path.iterdir()), "a tutorial leaves nothing behind"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS


@each
def test_is_built_like_the_others(path):
    first, *_ = prose(path)
    assert re.match(r"# .+\n\n", first)
    assert "you will be able to" in first
    assert len(path.read_text(encoding="utf-8").splitlines()) < 200
    kinds = cells(path)
    assert re.search(r"^assert ", kinds[-3][1], re.M), "assertions come before the summary"
    assert kinds[-2][1].startswith("## Summary\n")
    assert kinds[-1][1].startswith("## Exercises\n")
    assert re.findall(r"^(\d)\. ", kinds[-1][1], re.M) == ["1", "2"]
    assert "efcp_ref.exercises" in kinds[-1][1]
    assert re.search(r'check\("(S?\d|W|K):\d+"', kinds[-1][1])


@each
def test_exercises_name_printed_lines_of_code(path):
    from efcp_ref.paper.printed import lines

    for tag in re.findall(r'check\("([^"]+)"', cells(path)[-1][1]):
        assert lines()[tag].kind == "code"


@each
def test_nothing_is_easy_in_print(path):
    for text in prose(path):
        assert not re.search(r"\b(simply|obviously|trivially|clearly|of course)\b", text, re.I)


@each
def test_every_figure_says_what_it_shows(path):
    """`show` refuses a short alt text; here: no figure goes round it, and every tutorial has one."""
    code = "\n".join(text for kind, text in cells(path) if kind == "code")
    figures, shown = code.count("plt.subplots("), len(re.findall(r"^show\(", code, re.M))
    assert figures == shown >= 1
    assert "plt.show" not in code


@each
def test_the_text_of_a_figure_can_be_read_on_a_phone(path):
    """Drawn 6 inches wide and shown 358 pixels wide, 10.5 points are 8.7 pixels."""
    source = path.read_text(encoding="utf-8")
    assert all(float(width) <= 6 for width in re.findall(r"figsize=\(([\d.]+)", source))
    assert not re.findall(r"fontsize=\d", source)


@each
def test_builds_on_the_reference(path):
    """No private copy of an algorithm: no tagged lines, and the reference is imported."""
    source = path.read_text(encoding="utf-8")
    assert not re.search(r"#\s+(?:S?\d|W|K):\d+\s*$", source, re.M)
    assert re.search(r"^(import|from) efcp_ref", source, re.M)


REFERENCES = (
    r"`[^`]*`|\$\$.*?\$\$|\$[^$]*\$"  # code and formulas
    r"|(?:[Aa]lgorithms?|[Ll]ines?|[Ss]ections?|[Tt]utorials?|[Tt]ables?|[Ff]igures?|[Ll]emma|[Rr]emarks?|[Ee]q\.|[Aa]ppendix)"
    r"[ (]+[A-Z]?\.?\d+[)]?(?:(?:,| and| to) \d+)*"
    r"|\bR\d+\b|\b(?:S?\d|W|K):\d+\b|\[[^]]*\]\([^)]*\)|^\d\. |^#+ .*$"  # readings, tags, links, list numbers, headings
)


def numbers(text):
    """Numbers of a text without references: 97.4, 1,024, 0.001."""
    rest = re.sub(REFERENCES, " ", text, flags=re.M | re.S)
    return {float(n.replace(",", "")) for n in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?![\w])", rest)}


def asserted(path):
    source = path.read_text(encoding="utf-8")
    tests = [ast.unparse(node.test) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]
    return {float(n.replace("_", "")) for n in re.findall(r"(?<![\w.])\d[\d_]*(?:\.\d+)?(?:e-?\d+)?", " ".join(tests))}


def test_the_search_for_numbers_finds_them():
    text = "About 97.4 % of 1,797, line 5 of Algorithm 1, `x = 3`, $k = 4$, R12, 1:6, eq. (2), and 8 more.\n## 3 things"
    assert numbers(text) == {97.4, 1797.0, 8.0}


@each
def test_every_number_in_prose_is_asserted(path):
    missing = set().union(*map(numbers, prose(path))) - asserted(path)
    assert not missing, f"{sorted(missing)} stand in the text and in no assert"


@each
def test_exercises_are_there(path):
    from efcp_ref.exercises import ids

    named = re.findall(r'check\("([^"]+)"', cells(path)[-1][1])
    assert set(named) <= set(ids())


@pytest.mark.timeout(300)
def test_a_page_a_notebook_and_its_pictures_come_out_of_a_real_kernel(tmp_path):
    name = "06_ggt_by_eigenvectors"
    run = subprocess.run(
        [sys.executable, str(FOLDER / "export.py"), str(tmp_path), name], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    page = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[([^\]]{40,})\]\(([^)]+\.png)\)", page)
    assert [file for _, file in pictures] == [f"{name}-1.png"]
    assert all((tmp_path / file).read_bytes().startswith(b"\x89PNG") for _, file in pictures)
    assert "<table " in page
    assert "4:10" in page
    assert "(07_power_iteration_low_rank.md)" in page
    notebook = json.loads((tmp_path / f"{name}.ipynb").read_text(encoding="utf-8"))
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    assert kinds == [kind for kind, _ in cells(FOLDER / f"{name}.py")]
    assert any(cell.get("outputs") for cell in notebook["cells"])


def test_the_exporter_stops_at_a_cell_that_raises_and_names_unknown_tutorials(tmp_path):
    run = [sys.executable, str(FOLDER / "export.py"), str(tmp_path), "99_nothing"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no such tutorial: 99_nothing" in done.stderr


@each
def test_links_lead_to_tutorials(path):
    for text in prose(path):
        for file in re.findall(r"\]\((\d\d_\w+\.py)\)", text):
            assert (FOLDER / file).exists(), file
