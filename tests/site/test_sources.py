"""What the site is made from: readings, recorded runs, code blocks, spelling, sizes. Needs no built site."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from efcp_ref import tracing
from efcp_ref.paper import printed
from tests.site.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [p for p in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))] if p.exists()]
BLOCK = re.compile(r"^```(?:python|py)\b[^\n]*\n(.*?)^```", re.M | re.S)


def names_of_tests() -> set[str]:
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }


def test_every_reading_is_there_once_with_tests_that_exist():
    pytest.importorskip("pygments")
    from _build.paper import readings

    names = [entry["id"] for entry in readings()]
    assert names == [f"R{n}" for n in range(1, 43)]
    known = names_of_tests()
    missing = [(entry["id"], test) for entry in readings() for test in entry["tests"] if test not in known]
    assert not missing
    listed = {test for entry in readings() for test in entry["tests"]}
    assert {name for name in known if re.match(r"test_R\d+_", name)} <= listed
    assert all(entry["tests"] and entry["printed"] and entry["reading"] for entry in readings())


def test_the_ring_holds_what_the_window_beside_it_holds():
    pytest.importorskip("pygments")
    from _build.record import recorded

    compared = 0
    for case in recorded("1")["cases"]:
        for event in case["events"]:
            frames = [frame for _, frame in event["f"]]
            shown = {name.removeprefix("state."): case["pool"][n] for frame in frames for name, n in frame.items()}
            if "ring" not in event or "A.window.values" not in shown:
                continue
            rows = case["pool"][event["ring"]]["rows"]
            assert [[value for _, value in row] for row in rows] == shown["A.window.values"]
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("key", printed.algorithms())
def test_the_player_shows_what_python_computed(key):
    pytest.importorskip("pygments")
    from _build.record import CASES, recorded

    data = json.loads(json.dumps(recorded(key)))
    for case, source in zip(data["cases"], CASES[key], strict=True):
        events = [e for e in tracing.trace(source.run).events if e.line.split(":")[0] == key]
        lines = [e["l"] for n, e in enumerate(case["events"]) if not ("tree" in e and e["at"] > 1)]
        assert lines == [int(e.line.split(":")[1]) for e in events]
        last, shown = events[-1], dict(case["events"][-1]["f"][-1][1])
        for name, value in last.variables.items():
            if isinstance(value, np.ndarray) and name in shown and value.ndim < 3:
                assert case["pool"][shown[name]] == value.tolist()


def test_every_recorded_run_starts_with_what_it_is_given():
    pytest.importorskip("pygments")
    from _build.record import CASES, recorded

    for key, cases in CASES.items():
        for case, source in zip(recorded(key)["cases"], cases, strict=True):
            first = {name: case["pool"][n] for _, frame in case["events"][0]["f"] for name, n in frame.items()}
            assert any(isinstance(value, list) for value in first.values()), (key, case["title"])
            outermost = {name: case["pool"][n] for name, n in case["events"][0]["f"][0][1].items()}
            given = {name: np.asarray(value).tolist() for name, value in source.given.items()}
            assert given.items() <= outermost.items()


@pytest.mark.parametrize("key", printed.algorithms())
def test_the_player_says_what_a_line_returns(key):
    pytest.importorskip("pygments")
    from _build.record import CASES, recorded

    said = 0
    for case, source in zip(recorded(key)["cases"], CASES[key], strict=True):
        events = [e for e in tracing.trace(source.run).events if e.line.split(":")[0] == key]
        shown = [e for e in case["events"] if e.get("at", 0) <= 1 or "tree" not in e]
        for event, entry in zip(events, shown, strict=True):
            plain = event.returned and isinstance(event.result, (int, float, np.ndarray))
            assert ("r" in entry) == plain
            if plain:
                assert case["pool"][entry["r"]] == np.asarray(event.result).tolist()
                said += 1
    assert bool(said) == (key in ("K", "W"))


@pytest.mark.parametrize("key", printed.algorithms())
def test_a_function_around_another_has_called_it(key):
    pytest.importorskip("pygments")
    from _build.record import CASES, recorded

    around: set[tuple[str, str]] = set()

    def called(frame, event, argument):
        name, outer = frame.f_code.co_name, frame.f_back
        while event == "call" and outer:
            around.add((outer.f_code.co_name, name))
            outer = outer.f_back

    nested = 0
    for case, source in zip(recorded(key)["cases"], CASES[key], strict=True):
        around.clear()
        before = sys.getprofile()
        sys.setprofile(called)
        try:
            source.run()
        finally:
            sys.setprofile(before)
        pairs = {
            (outer, inner)
            for event in case["events"]
            for (outer, _), (inner, _) in zip(event["f"], event["f"][1:], strict=False)
            if outer
        }
        assert pairs <= around
        nested += len(pairs)
    assert nested or key not in ("1", "S1")


PHONE = 358  # pixels that a figure has on a phone 390 pixels wide


@pytest.mark.parametrize("figure", sorted((DOCS / "assets").rglob("*.svg")), ids=lambda p: p.stem)
def test_the_text_of_a_figure_can_be_read_on_a_phone(figure):
    text = figure.read_text(encoding="utf-8")
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1])
    sizes = [100 * float(scale) for scale in re.findall(r"scale\(([\d.]+) -[\d.]+\)", text)]  # matplotlib's outlines
    sizes += [float(size) for size in re.findall(r"font(?:-size=\"|: *|-size: *)([\d.]+)", text)]
    assert sizes
    assert min(sizes) * PHONE / width > 8, f"{min(sizes) * PHONE / width:.1f} pixels"


def test_a_stacked_table_names_the_column_of_every_cell():
    pytest.importorskip("pygments")
    from _build.text import table

    assert '<td>R1</td><td data-label="line">5</td>' in table(["", "line"], [["R1", "5"]], "readings", True)
    assert "data-" not in table(["rank"], [["1"]], "Table 12")


def test_two_or_three_inputs_reach_every_executable_line():
    pytest.importorskip("pygments")
    from _build.record import CASES, recorded

    for key in CASES:
        code = {line.n for line in printed.lines().values() if line.key == key and line.kind == "code"}
        reached = {e["l"] for case in recorded(key)["cases"] for e in case["events"]}
        assert len(CASES[key]) >= 2
        assert reached <= code
        assert code - reached <= ({5} if key == "W" else set()) or code == reached


def test_the_tree_of_the_reduction_adds_up_level_by_level():
    pytest.importorskip("pygments")
    from _build.record import recorded

    case = recorded("2")["cases"][1]
    levels = [e for e in case["events"] if "tree" in e]
    assert [e["at"] for e in levels] == [1, 2, 3]
    mem = [np.array(case["pool"][n]) for n in levels[-1]["tree"]]
    for n, half in enumerate((4, 2, 1)):
        assert np.array_equal(mem[n + 1][:half], mem[n][:half] + mem[n][half : 2 * half])
    assert mem[-1][0] == mem[0].sum()


def test_the_player_is_small_plain_and_valid():
    player = DOCS / "assets" / "player.js"
    assert player.stat().st_size < 20_000
    assert not re.search(r"\bimport\b|require\(|https?://(?!www\.w3\.org/2000/svg)", player.read_text(encoding="utf-8"))
    if shutil.which("node"):
        subprocess.run(["node", "--check", str(player)], check=True)


def test_katex_is_vendored_with_version_and_licence():
    folder = DOCS / "assets" / "katex"
    version = re.search(r"KaTeX (0\.19\.\d+)", (folder / "VERSION").read_text(encoding="utf-8"))
    assert version
    assert version[1] in (folder / "katex.min.js").read_text(encoding="utf-8")
    assert "MIT" in (folder / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_python_block_of_a_page_runs(page: Path, tmp_path: Path):
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    if not blocks:
        return
    for needed in ("examples", "vectors"):
        (tmp_path / needed).symlink_to(ROOT / needed)
    script = tmp_path / "blocks.py"
    script.write_text("\n\n".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", ["griffe_text", "paper", "recipes", "reference", "slim", "text"])
def test_the_examples_in_the_builder_run(name: str):
    pytest.importorskip("griffe" if name == "griffe_text" else "pygments")
    outcome = doctest.testmod(importlib.import_module(f"_build.{name}"))
    assert outcome.attempted
    assert not outcome.failed


def test_every_command_and_option_in_the_prose_is_offered():
    pytest.importorskip("pygments")
    from _build import recipes

    from efcp_ref.cli import main

    pages = [*PAGES, ROOT / "examples" / "README.md"]
    prose = [p.read_text(encoding="utf-8") for p in pages] + [recipes.recipe(n) for n in ("command", "files", "jax")]
    wrong, seen = [], 0
    for command, rest in re.findall(r"efcp-ref (\w+)([^\n`|]*)", "\n".join(prose)):
        if command in main.commands:
            offered = {option for param in main.commands[command].params for option in param.opts}
            seen += 1
            wrong += [(command, option) for option in re.findall(r"(?<!\S)--[a-z]+", rest) if option not in offered]
    assert not wrong
    assert seen > 20


def test_spelling():
    program = Path(sys.executable).with_name("codespell")
    if not program.exists():
        pytest.skip("no codespell: pip install -e '.[docs]'")
    files = [str(p.relative_to(ROOT)) for p in PAGES] + ["docs/readings.toml", "docs/_build", "tutorials", "examples"]
    files += [str(p.relative_to(ROOT)) for p in sorted((ROOT / "efcp_ref").rglob("*.py"))]
    words = ["--ignore-words", "docs/words.txt"]
    done = subprocess.run([str(program), *words, *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_belittling_words():
    found = [
        f"{page.relative_to(ROOT)}: {match[0]}"
        for page in PAGES
        for match in re.finditer(r"\b(simply|obviously|trivially|of course)\b", page.read_text(encoding="utf-8"), re.I)
    ]
    assert not found


@pytest.mark.parametrize("key", printed.algorithms())
def test_the_listing_has_every_line_with_its_own_code(key):
    pytest.importorskip("pygments")
    from _build.paper import anchor, listing

    text = listing(key)
    lines = [line for line in printed.lines().values() if line.key == key]
    assert re.findall(r'<tr id="([\w-]+)"', text) == [anchor(line.tag) for line in lines]
    assert text.count('class="source none"') == sum(line.kind == "structure" for line in lines)


def documented() -> list[tuple[str, ast.AST, str]]:
    """Return what has a docstring in the modules that have a page: its name, its node and the text as it is written."""
    from _build.reference import modules, source_of

    found = []
    for module in modules():
        for node in ast.walk(ast.parse(source_of(module).read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (
                text := ast.get_docstring(node, False)
            ):
                found.append((f"{module}.{getattr(node, 'name', '')}", node, text))
    return found


def test_a_docstring_says_one_exception_a_line_and_no_type_of_its_own():
    pytest.importorskip("pygments")
    wrong = []
    for name, node, raw in documented():
        text = inspect.cleandoc(raw)
        for part in re.findall(r"^Raises:\n((?: .*\n?)+)", text, re.M):
            entries = re.split(r"\n(?= {4}\S)", part.rstrip())
            wrong += [f"{name}: {e}" for e in entries if not re.match(r" {4}[\w.]+(, \w+)*: ", e)]
            wrong += [f"{name}: {e}" for e in entries if re.search(r"[.;] `*[A-Z]\w+`*: ", e)]
        for part in re.findall(r"^Returns:\n((?: .*\n?)+)", text, re.M):
            if isinstance(node, ast.FunctionDef) and node.returns and re.match(r"[^`\n]*?: ", part.strip()):
                wrong.append(f"{name}: {part}")  # what stands before a colon takes the place of the annotation
        if isinstance(node, ast.Module) and raw.count("\n") > 1:
            lines = [line for line in raw.splitlines()[1:] if line.strip()]
            if lines and all(line.startswith(" ") for line in lines):
                wrong.append(f"{name}: its code loses its indentation, nothing else follows the first line")
    assert not wrong


def test_what_is_shown_as_code_has_a_language():
    pytest.importorskip("griffe")
    from _build.griffe_text import marked

    shown = [(name, marked(inspect.cleandoc(raw))) for name, _, raw in documented()]
    fences = [re.findall(r"^ *```(\w*)$", text, re.M) for _, text in shown]
    assert sum(map(len, fences)) > 700
    assert not [name for (name, _), found in zip(shown, fences, strict=True) if not all(found[::2]) or any(found[1::2])]
    assert {language for found in fences for language in found[::2]} == {"pycon", "python", "sh", "text"}


def test_the_fields_of_every_record_are_listed():
    pytest.importorskip("griffe")
    import griffe
    from _build.griffe_text import PlainText

    package = griffe.load(
        "efcp_ref", search_paths=[str(ROOT)], submodules=True, extensions=griffe.load_extensions(PlainText)
    )
    sparse, result = package["contract.Argument"], package["paper.woodbury.MFACDirection"]
    assert '- **`shape`** (`str`) – "(m, d)"; "" for a scalar.' in sparse.docstring.value
    assert "- **`S`** (`Array`) – (m, m) G G^T, undamped." in result.docstring.value
    assert [p.name for p in result["__init__"].parameters] == ["self", "u", "S", "h", "c"]
    assert "- **`MLP`** = `Network((64, 256, 10))` – d = 19,210." in package["data.mlp"].docstring.value
    assert "Door" not in package["oracle.campaign"].exports
    assert "Plan" in package["oracle.campaign"].exports
    assert "topk_sgd" in package["targets.scipy32"].exports  # where they are defined has no page
