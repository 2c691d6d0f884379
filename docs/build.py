"""Build the site: record the traces, run the tutorials, draw the figures, write the tables, then run mkdocs.

    python docs/build.py [--strict] [--no-tutorials] [--keep-tutorials] [--version NAME]

The site is build/site; build/docs holds the pages that mkdocs reads, build/cache what need not run again. A page that
other work is to provide and that is not there is replaced by a notice; with --strict it is an error. mkdocs itself is
always strict.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

BUILD = ROOT / "build"
STAGE, CACHE = BUILD / "docs", BUILD / "cache"
EXPECTED = {  # page: where it comes from
    "claims.md": "docs/claims.md",
    "findings.md": "docs/findings.md",
    "fast.md": "docs/fast.md",
    "kernels.md": "docs/kernels.md",
}
WIDE = ("fast.md", "findings.md")  # pages whose table or picture needs the room of the table of contents
LEFT_OUT = {"_build", "_overrides", "build.py", "readings.toml", "pictures", "words.txt", "__pycache__"}
DIRECTIVE = re.compile(r"<!-- gen: (\w+)(?: ([\w./-]+))? -->")


class Problem(Exception):
    """Something that is missing or wrong, in words."""


def step(text: str, began: list[float]) -> None:
    """Say what was done and how long it took."""
    print(f"{time.monotonic() - began[0]:6.1f} s  {text}", flush=True)
    began[0] = time.monotonic()


# ---- staging -----------------------------------------------------------------------------------------------------


def staged(strict: bool) -> None:
    """Copy what is written by hand; put notices where a page is missing."""
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(HERE, STAGE, ignore=lambda folder, names: [n for n in names if n in LEFT_OUT or n.endswith(".py")])
    for page, source in EXPECTED.items():
        if not (STAGE / page).exists():
            if strict:
                raise Problem(f"{source} is not there, and the site needs it")
            (STAGE / page).write_text(
                f"# Not yet written\n\nThis page comes from `{source}`, which is not there yet.\n"
            )
    shutil.copy(ROOT / "examples" / "README.md", STAGE / "check" / "doors.md")
    for page in STAGE.rglob("*.md"):
        brought(page, strict)
    for page in (STAGE / name for name in WIDE):
        page.write_text("---\nhide: [toc]\n---\n" + page.read_text(encoding="utf-8"), encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (STAGE / "about").mkdir(exist_ok=True)
    (STAGE / "about" / "changelog.md").write_text(changelog, encoding="utf-8")


def brought(page: Path, strict: bool) -> None:
    r"""Mend links that lead out of docs/: a picture or table comes along, the name of a source file is only named.

    In the code of a table GitHub wants a bar as ``\|``; here it is a bar.
    """

    def replace(match: re.Match[str]) -> str:
        mark, text, link = match.groups()
        file = (HERE / page.relative_to(STAGE).parent / link).resolve()
        if file.is_relative_to(HERE) or not file.is_relative_to(ROOT):
            return match[0]
        if not file.is_file():
            if strict:
                raise Problem(f"docs/{page.relative_to(STAGE)} shows {link}, which is not there")
            return f"{text} (`{file.relative_to(ROOT)}` is not there yet)"
        name = file.relative_to(ROOT)
        if file.suffix not in (".svg", ".png", ".json", ".csv"):
            return f"{text}" if text.strip("`") == str(name) else f"{text} (`{name}`)"
        (STAGE / "repository" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, STAGE / "repository" / name)
        return f"{mark}[{text}]({os.path.relpath(STAGE / 'repository' / name, page.parent)})"

    text = page.read_text(encoding="utf-8")
    rows = r"(?m)^\|.*\|$"
    text = re.sub(rows, lambda row: re.sub("`[^`]*`", lambda code: code[0].replace(r"\|", "|"), row[0]), text)
    page.write_text(re.sub(r"(!?)\[([^\]\n]*)\]\((\.\./[^)\s#]+)\)", replace, text), encoding="utf-8")


def expanded(generators: dict[str, Callable[..., str]]) -> int:
    """Replace every ``<!-- gen: NAME ARGUMENT -->`` by what the code says; return how many there were."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        name, argument = match.groups()
        if name not in generators:
            raise Problem(f"unknown directive {name!r}, must be one of {', '.join(sorted(generators))}")
        return generators[name](argument) if argument else generators[name]()

    for page in STAGE.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        if "<!-- gen:" in text:
            page.write_text(DIRECTIVE.sub(replace, text), encoding="utf-8")
    return count


# ---- tutorials ---------------------------------------------------------------------------------------------------


def fingerprint(*paths: Path) -> str:
    """Return a hash of files and of all the code that they could import."""
    kinds = (".py", ".toml", ".npz", ".json", ".jsonl", ".cu", ".cpp", ".h")
    code = [p for p in sorted((ROOT / "efcp_ref").rglob("*")) if p.suffix in kinds]
    digest = hashlib.sha256()
    for path in [*paths, *code]:
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:20]


def stamp() -> str:
    """Return a hash of everything that the site is made from; build/stamp holds that of the site that was built."""
    pages = [p for p in sorted(HERE.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    folders = [p for name in ("tutorials", "examples", "benchmarks/results") for p in sorted((ROOT / name).rglob("*"))]
    used = [p for p in folders if p.is_file() and not {"__pycache__", "target"} & set(p.parts)]
    tests = [p for p in sorted((ROOT / "tests").rglob("test_*.py")) if "def test_R" in p.read_text(encoding="utf-8")]
    return fingerprint(*pages, *used, *tests, *(ROOT / name for name in ("mkdocs.yml", "CHANGELOG.md", "CITATION.cff")))


def tutorial(source: Path, keep: bool = False) -> str:
    """Execute one tutorial, or take its pages from the cache (where ``keep``: of whatever code); return its name."""
    shared = ("_*.py", "export.py", "make_*.py", "*.json")  # not the other tutorials
    helpers = [path for pattern in shared for path in sorted(source.parent.glob(pattern))]
    kept = CACHE / "tutorials" / f"{source.stem}-{fingerprint(source, *helpers)}"
    if keep and (old := [p for p in kept.parent.glob(f"{source.stem}-*") if p.suffix != ".new"]):
        kept = old[0]
    if not kept.exists():
        fresh = kept.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        done = subprocess.run(
            [sys.executable, str(source.parent / "export.py"), str(fresh), source.stem],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Problem(f"{source.name} does not run:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        for old in kept.parent.glob(f"{source.stem}-*"):
            if old != fresh:
                shutil.rmtree(old)
        fresh.rename(kept)
    shutil.copytree(kept, STAGE / "learn", dirs_exist_ok=True)
    for picture in kept.glob("*.png"):
        smaller(picture, STAGE / "learn" / picture.name)
    unrun(STAGE / "learn" / f"{source.stem}.ipynb")
    return source.stem


def smaller(picture: Path, to: Path) -> None:
    """Write a drawing with a palette of 128 colours: a third of the bytes, and nothing that an eye can see."""
    from PIL import Image

    Image.open(picture).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(to, optimize=True)


def unrun(notebook: Path) -> None:
    """Take the outputs out of a notebook that is downloaded: the page shows them, and the reader makes them."""
    data = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in data["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    notebook.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def tutorials(strict: bool, wanted: bool, keep: bool) -> list[str]:
    """Return the names of the tutorials whose pages are there."""
    sources = sorted((ROOT / "tutorials").glob("[0-9][0-9]_*.py")) if wanted else []
    if strict and not sources:
        raise Problem("tutorials/NN_name.py: there is none, and the site needs them")
    with ThreadPoolExecutor(2) as pool:
        outcomes = [(source, pool.submit(tutorial, source, keep)) for source in sources]
    names = []
    for source, outcome in outcomes:
        try:
            names.append(outcome.result())
        except Problem as why:
            if strict:
                raise
            print(f"left out: {source.name}: {[line for line in str(why).splitlines() if line.strip()][-1]}")
    return names


def heading(page: Path) -> str:
    """Return the title of a page."""
    match = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.M)
    return match[1] if match else page.stem


def tutorial_list(names: list[str]) -> str:
    """Return the list of the tutorials, each with the number that the text uses; the first is 0."""
    if not names:
        return "The tutorials are not part of this build.\n"
    return "\n".join(f"- **{int(n[:2])}** [{heading(STAGE / 'learn' / f'{n}.md')}]({n}.md)" for n in names) + "\n"


# ---- nav and mkdocs ----------------------------------------------------------------------------------------------


def nav(names: list[str], api: dict[str, list[str]]) -> list[Any]:
    """Return the table of contents; pages that nobody listed go to the section of their folder."""
    from _build.paper import PAGES

    def present(*pages: str) -> list[Any]:
        return [page for page in pages if (STAGE / page).exists()]

    tree: list[Any] = [
        {"Home": "index.md"},
        {
            "Learn": [
                "learn/index.md",
                *[f"learn/{n}.md" for n in names],
                *present("learn/exercises.md", "learn/notation.md"),
            ]
        },
        {"Algorithms": ["algorithms/index.md", *[f"algorithms/{page}.md" for page in PAGES.values()]]},
        {"Kernels": present("kernels.md", "fast.md")},
        {
            "Check your code": [
                "check/index.md",
                "check/recipes.md",
                "check/doors.md",
                "check/failure.md",
                "check/criteria.md",
                *present("criteria.md", "check/oracle.md", "check/certify_and_replay.md"),
            ]
        },
        {"The paper, checked": ["paper/index.md", "claims.md", "paper/readings.md", "paper/tables.md", "findings.md"]},
        {
            "Reference": [
                "reference/index.md",
                "reference/contract.md",
                "reference/command-line.md",
                "reference/formats.md",
                "reference/numerics.md",
                {
                    "Python": [
                        "reference/api/index.md",
                        *api.pop("", []),
                        *[{name: pages} for name, pages in api.items()],
                    ]
                },
            ]
        },
        {"About": ["about/index.md", "about/changelog.md", "about/accessibility.md"]},
    ]
    listed = set(re.findall(r"[\w./-]+\.md", str(tree)))
    sections = {next(iter(entry)): entry for entry in tree if isinstance(next(iter(entry.values())), list)}
    folders = {
        "learn": "Learn",
        "algorithms": "Algorithms",
        "check": "Check your code",
        "oracle": "Check your code",
        "paper": "The paper, checked",
        "reference": "Reference",
        "about": "About",
        "kernels": "Kernels",
    }
    for page in sorted(str(p.relative_to(STAGE)) for p in STAGE.rglob("*.md")):
        if page not in listed:
            name = folders.get(page.split("/")[0], "About")
            sections[name][name].append(page)
    return tree


def configured(tree: list[Any], version: str | None) -> Path:
    """Write build/mkdocs.yml: mkdocs.yml with the nav."""
    import yaml

    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8") + yaml.safe_dump({"nav": tree}, sort_keys=False, width=120)
    if version:
        text += "extra: {version: {provider: mike}}\nhooks: [../docs/_build/hooks.py]\n"
    path = BUILD / "mkdocs.yml"
    path.write_text(text, encoding="utf-8")
    return path


def mkdocs(config: Path, version: str | None) -> None:
    """Run mkdocs, or mike where a version is named."""
    command = ["mkdocs", "build", "-f", str(config)]
    if version:
        command = ["mike", "deploy", "--config-file", str(config), "--update-aliases", version, "latest"]
    command[0] = str(Path(sys.executable).with_name(command[0]))
    environment = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SOURCE_DATE_EPOCH": "1763769600",
    }
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
        raise Problem("mkdocs found something: see above")


def build(strict: bool, wanted: bool, keep: bool, version: str | None) -> None:
    """Build everything."""
    from _build import figures, paper, recipes, reference
    from _build.slim import slimmed

    began = [time.monotonic()]
    start, made_from = began[0], stamp()
    BUILD.mkdir(exist_ok=True)
    staged(strict)
    with ThreadPoolExecutor(1) as pool:
        failure = pool.submit(reference.run, "efcp_ref", "check", "examples/my_code.py", expected=(1,))
        steps = paper.traces(STAGE / "assets" / "traces")
        step(f"{steps} steps recorded", began)
        measured = figures.home(STAGE / "assets" / "figures")
        step("figures drawn", began)
        output = re.sub(r", [\d.]+ s\)", ")", failure.result())  # the same page on every build
    step("examples/my_code.py judged", began)
    names = tutorials(strict, wanted, keep)
    step(f"{len(names)} tutorials", began)
    api = reference.api_pages(STAGE / "reference" / "api")
    generators: dict[str, Callable[..., str]] = {
        "listing": paper.listing,
        "siblings": paper.siblings,
        "player": paper.player,
        "cost": paper.cost,
        "mistakes": paper.mistakes,
        "readings_of": paper.readings_of,
        "algorithm_index": paper.algorithm_index,
        "readings": paper.reading_pages,
        "memory_table": paper.memory_table,
        "table_12": paper.table_12,
        "figure_2": paper.figure_2,
        "against_itself": paper.against_itself,
        "notation": paper.notation,
        "api_index": reference.api_index,
        "command_line": reference.command_line,
        "contract_table": reference.contract_table,
        "optimizer_table": reference.optimizer_table,
        "criteria": reference.criteria,
        "failure": lambda: reference.fenced(output, "text", "efcp-ref check examples/my_code.py"),
        "source": lambda path: reference.fenced((ROOT / path).read_text(encoding="utf-8"), "python"),
        "source_yaml": lambda path: reference.fenced((ROOT / path).read_text(encoding="utf-8"), "yaml"),
        "recipe": recipes.recipe,
        "schemas": recipes.schemas,
        "exercises": recipes.exercises,
        "measured": lambda name: f"{measured[name]:.3g}",
        "tutorials": lambda: tutorial_list(names),
        "tutorial_count": lambda: str(len(names)),
    }
    count = expanded(generators)
    step(f"{count} tables and listings, {sum(map(len, api.values()))} API pages", began)
    config = configured(nav(names, api), version)
    mkdocs(config, version)
    if not version:
        slimmed(BUILD / "site")
        (BUILD / "stamp").write_text(made_from, encoding="utf-8")
    step("mkdocs", began)
    size = sum(p.stat().st_size for p in (BUILD / "site").rglob("*") if p.is_file()) if not version else 0
    where = f"version {version} on the branch gh-pages" if version else f"build/site, {size / 1e6:.2f} MB"
    print(f"{time.monotonic() - start:6.1f} s  in all: {where}")


def main() -> None:
    """Run the build from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strict", action="store_true", help="a page or tutorial that is missing is an error")
    parser.add_argument("--no-tutorials", action="store_true", help="leave the tutorials out")
    parser.add_argument(
        "--keep-tutorials", action="store_true", help="take their pages from the cache, even if the code has changed"
    )
    parser.add_argument("--version", help="deploy this version with mike instead of writing build/site")
    arguments = parser.parse_args()
    try:
        build(arguments.strict, not arguments.no_tutorials, arguments.keep_tutorials, arguments.version)
    except Problem as why:
        sys.exit(f"docs/build.py: {why}")


if __name__ == "__main__":
    main()
