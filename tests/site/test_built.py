"""The built site as files: links, anchors, sizes, formulas, names. Skipped, and counted, where it is not built."""

from __future__ import annotations

import ast
import html
import re
import zlib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from efcp_ref.paper import printed
from tests.site.conftest import ROOT

LIMIT = 8_000_000  # bytes


class Page(HTMLParser):
    """Ids, links and resources of a page, and its text without code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.silent = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        if tag == "a" and given.get("name"):
            self.ids.add(str(given["name"]))
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        if tag in ("script", "img", "source", "iframe") and given.get("src"):
            self.resources.append(str(given["src"]))
        if tag == "link" and given.get("href") and given.get("rel") not in ("canonical", "prev", "next"):
            self.resources.append(str(given["href"]))
        if given.get("data-trace"):
            self.resources.append(str(given["data-trace"]))
        if tag == "img":
            self.pictures.append(given)
        if tag in ("script", "style", "code", "pre"):
            self.silent += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "code", "pre"):
            self.silent -= 1

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.words.append(data)


@cache
def parsed(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def pages(site: Path) -> list[Path]:
    return [p for p in sorted(site.rglob("*.html")) if p.name != "404.html"]


def target(site: Path, page: Path, url: str) -> tuple[Path, str]:
    """Return the file that an internal link leads to, and the anchor in it."""
    path, fragment = urldefrag(url)
    place = urlsplit(path).path
    base = site if place.startswith("/") else page.parent
    file = page if not place else (base / unquote(place.lstrip("/"))).resolve()
    return (file / "index.html" if file.is_dir() else file), unquote(fragment)


def external(url: str) -> bool:
    return bool(urlsplit(url).scheme or url.startswith("//"))


def test_every_internal_link_and_anchor_resolves(site):
    broken = []
    for page in pages(site):
        for url in parsed(page).links:
            if external(url):
                continue
            file, fragment = target(site, page, url)
            if not file.exists() or (fragment and file.suffix == ".html" and fragment not in parsed(file).ids):
                broken.append(f"{page.relative_to(site)}: {url}")
    assert not broken


def test_the_page_for_what_is_not_there_leads_on_from_any_depth(site):
    text = (site / "404.html").read_text(encoding="utf-8")
    assert "<title>Page not found - efcp_ref</title>" in text
    assert re.findall(r"<h1>(.*?)</h1>", text) == ["Page not found"]
    page = parsed(site / "404.html")
    urls = [url for url in page.links + page.resources if not external(url) and not url.startswith("#")]
    assert not [url for url in urls if not url.startswith("/") or not target(site, site / "404.html", url)[0].exists()]
    inside = re.search(r"<article.*?</article>", text, re.S)[0]
    assert {"/.", "/algorithms/", "/learn/", "/reference/"} <= set(re.findall(r'href="([^"]*)"', inside))
    assert '<form class="lost" action="/."' in inside


def test_what_a_tutorial_prints_fits_its_box(site):
    """The box is 81 characters wide at 1300 pixels; what is wider would be cut."""
    wide = [
        f"{page.parent.name}: {line}"
        for page in sorted((site / "learn").glob("[0-9]*/index.html"))
        for block in re.findall(r'<div class="language-text highlight">.*?</div>', page.read_text("utf-8"), re.S)
        for line in html.unescape(re.sub(r"<[^>]*>", "", block)).splitlines()
        if len(line) > 81
    ]
    assert not wide


def test_nothing_is_loaded_from_elsewhere_and_every_file_is_there(site):
    wrong = [
        f"{page.relative_to(site)}: {url}"
        for page in pages(site)
        for url in parsed(page).resources
        if not url.startswith("data:") and (external(url) or not target(site, page, url)[0].exists())
    ]
    assert not wrong


def test_the_site_is_small(site):
    size = sum(p.stat().st_size for p in site.rglob("*") if p.is_file())
    assert size < LIMIT, f"{size:,} bytes"


def test_there_is_no_stray_dollar(site):
    stray = [
        f"{page.relative_to(site)}: {match[0]}"
        for page in pages(site)
        for match in re.finditer(r"\$[^$\n]{1,80}\$", "".join(parsed(page).words))
    ]
    assert not stray


def test_no_fence_of_code_is_shown(site):
    assert not [str(p.relative_to(site)) for p in pages(site) if "```" in p.read_text(encoding="utf-8")]


@pytest.mark.parametrize("key", printed.algorithms())
def test_every_printed_line_has_its_anchor(site, key):
    from _build.paper import PAGES, anchor

    page = parsed(site / "algorithms" / PAGES[key] / "index.html")
    assert {anchor(line.tag) for line in printed.lines().values() if line.key == key} <= page.ids
    assert "\\(" in "".join(page.words)


def test_every_reading_has_its_anchor(site):
    assert {f"r{n}" for n in range(1, 43)} <= parsed(site / "paper" / "readings" / "index.html").ids


def test_every_picture_says_what_it_shows(site):
    silent = [str(page.relative_to(site)) for page in pages(site) for p in parsed(page).pictures if not p.get("alt")]
    assert not silent


def test_every_page_has_a_title_and_no_page_is_missing(site):
    for page in pages(site):
        assert len(re.findall(r"<h1[ >]", page.read_text(encoding="utf-8"))) == 1, page
        assert "Not yet written" not in "".join(parsed(page).words), page


def inventory(site: Path) -> set[str]:
    """Return the names that mkdocstrings documented."""
    data = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split(" ")[0] for line in zlib.decompress(data).decode().splitlines()}


def test_every_public_name_is_documented(site):
    from _build.reference import modules, source_of

    documented = inventory(site)
    missing = []
    for module in modules():
        for node in ast.parse(source_of(module).read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                if f"{module}.{node.name}" not in documented:
                    missing.append(f"{module}.{node.name}")
                if not ast.get_docstring(node):
                    missing.append(f"{module}.{node.name} (docstring)")
    assert not missing


def test_what_a_module_hands_on_is_documented_where_it_is_defined(site):
    from _build.reference import modules, source_of

    seen, wrong = 0, []
    for page in sorted((site / "reference" / "api").rglob("*.html")):
        for name in re.findall(r'<h\d id="(efcp_ref[\w.]*)" class="doc', page.read_text(encoding="utf-8")):
            module, _, own = name.rpartition(".")
            if module in modules():
                body = ast.parse(source_of(module).read_text(encoding="utf-8")).body
                given = [n for n in body if isinstance(n, ast.ImportFrom) and n.module in modules()]
                seen += 1
                wrong += [name] * any(own == (part.asname or part.name) for n in given for part in n.names)
    assert seen > 700
    assert not wrong


def test_the_fields_of_every_public_record_are_on_its_page(site):
    from _build.griffe_text import is_record
    from _build.reference import modules, page_of, source_of

    missing = []
    for module in modules():
        page = (site / "reference" / "api" / page_of(module) / "index.html").read_text(encoding="utf-8")
        for node in ast.parse(source_of(module).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and is_record(node):
                part = page.partition(f'id="{module}.{node.name}" class="doc')[2].partition(' class="doc doc-object ')[
                    0
                ]
                names = [item.target.id for item in node.body if isinstance(item, ast.AnnAssign)]
                shown = re.findall(r"<li><strong><code>(\w+)</code></strong>", part)
                missing += [f"{module}.{node.name}.{n}" for n in names if not n.startswith("_") and n not in shown]
    assert not missing


def test_every_command_and_operation_is_there(site):
    from _build.reference import command_names

    from efcp_ref.contract import NAMES

    commands = (site / "reference" / "command-line" / "index.html").read_text(encoding="utf-8")
    assert all(f"efcp-ref {name}</code>" in commands for name in command_names())
    contract = (site / "reference" / "contract" / "index.html").read_text(encoding="utf-8")
    assert all(f"<code>{name}</code>" in contract for name in NAMES)


def test_every_tutorial_is_there_with_its_notebook(site):
    names = [p.stem for p in sorted((ROOT / "tutorials").glob("[0-9][0-9]_*.py"))]
    assert all((site / "learn" / name / "index.html").exists() for name in names)
    assert all((site / "learn" / f"{name}.ipynb").exists() for name in names)
