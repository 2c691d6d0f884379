"""The built site in Debian's chromium, the network blocked. Marker: browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from efcp_ref.paper import printed
from tests.site.conftest import site_folder
from tests.site.test_built import pages

pytestmark = pytest.mark.browser

WIDTHS, SCHEMES = (1300, 390), {"light": "default", "dark": "slate"}
FOLDER = site_folder()
PATHS = [str(p.parent.relative_to(FOLDER)) for p in pages(FOLDER)] if FOLDER.exists() else []
RULES: dict[str, Any] = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
COLOURS: dict[str, Any] = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}  # all of a scheme


@pytest.fixture(scope="module")
def open_page(browser: Any, address: str) -> Iterator[Any]:
    """Open pages in two tabs, one light and one dark; collect what they ask of other hosts and what they log.

    A tab is kept from test to test: a new one compiles KaTeX, Material and axe anew, five times the work of a page.
    """
    wrong: list[str] = []
    tabs = {}
    for scheme in SCHEMES:
        page = tabs[scheme] = browser.new_context(reduced_motion="reduce", color_scheme=scheme).new_page()
        page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith((address, "data:", "blob:")) else None)
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("response", lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None)

    def opened(path: str, scheme: str = "light") -> Any:
        page = tabs[scheme]
        wrong.clear()
        page.goto("about:blank")  # else an anchor of the page that is open would not load it anew
        page.set_viewport_size({"width": 1300, "height": 900})
        page.goto(f"{address}/{path}", wait_until="load")
        page.wait_for_function("!document.querySelector('.arithmatex') || document.querySelector('.katex')")
        if page.locator(".player").count():
            page.wait_for_selector(".player[data-ready]")
        return page

    opened.wrong = wrong  # type: ignore[attr-defined]
    yield opened
    for page in tabs.values():
        page.context.close()


def violations(page: Any, axe: str, only: dict[str, Any] = RULES) -> list[str]:
    """Return what axe finds on a page as it is now."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(axe)
    rules = json.dumps({"runOnly": only, "resultTypes": ["violations"]})
    found = page.evaluate(f"axe.run(document, {rules}).then(all => all.violations)")
    return [f"{v['id']} ({len(v['nodes'])}): {[n['target'] for n in v['nodes'][:3]]}" for v in found]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_whole_and_accessible_in_both_schemes_and_widths(open_page, axe, path):
    found = []
    for scheme, name in SCHEMES.items():
        page = open_page("" if path == "." else path + "/", scheme)
        assert page.evaluate("document.body.dataset.mdColorScheme") == name
        assert page.locator(".katex-error").count() == 0
        assert page.evaluate("[...document.querySelectorAll('.arithmatex')].every(e => e.querySelector('.katex'))")
        page.evaluate("[...document.querySelectorAll('details')].forEach(folded => folded.open = true)")
        assert page.evaluate(STRAY) == []
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(250)  # two delays of assets/math.js, which makes what scrolls reachable
            if page.evaluate("document.documentElement.scrollWidth > innerWidth + 1"):
                found.append(f"{scheme} {width}: the page scrolls sideways")
            if scheme == "light":
                found += [f"{width}: {broken}" for broken in page.evaluate(BROKEN)]
            only = RULES if scheme == "light" else COLOURS
            found += [f"{scheme} {width}: {violation}" for violation in violations(page, axe, only)]
        found += open_page.wrong
    assert not found


# A heading's link on a line of its own, and a short option on two lines.
BROKEN = r"""() => {
  const alone = [...document.querySelectorAll('.md-content .headerlink')].filter(link => {
    const text = document.createRange()
    text.setStart(link.parentNode, 0)
    text.setEndBefore(link)
    const lines = [...text.getClientRects()].filter(box => box.width), place = link.getBoundingClientRect()
    return lines.length && place.height && place.top > Math.max(...lines.map(box => box.bottom)) - 2
  })
  const split = [...document.querySelectorAll('.md-typeset :not(pre) > code')].filter(code =>
    /^-/.test(code.textContent) && code.textContent.length < 19 && code.getClientRects().length > 1)
  return [...alone.map(link => `below ${link.parentNode.textContent}`), ...split.map(code => `two ${code.textContent}`)]
}"""


STRAY = r"""() => {
  const text = document.querySelector('article').cloneNode(true)
  text.querySelectorAll('code, pre, .katex').forEach(e => e.remove())
  return text.textContent.match(/\\\(|\\\)|\\\[|\$[^$\n]{1,80}\$/g) || []
}"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_search_and_the_drawer_are_accessible_when_open(open_page, axe, scheme):
    page = open_page("", scheme)
    page.click("[data-md-component=search-query]")
    page.keyboard.type("woodbury", delay=20)
    page.wait_for_selector(".md-search-result__item")
    page.wait_for_timeout(400)  # it slides in
    assert not violations(page, axe)
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 390, "height": 900})
    page.click("label.md-header__button[for=__drawer]")
    page.wait_for_timeout(400)
    assert not violations(page, axe)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_underscore_of_a_linked_name_is_not_lost_in_the_underline(open_page, scheme):
    page = open_page("reference/api/", scheme)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        below = page.evaluate(UNDERLINED)
        assert below
        assert min(below) >= 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_copy_button_is_seen_and_hides_no_code_for_good(open_page, scheme):
    page = open_page("reference/api/efcp_ref.fast.optimizers/", scheme)
    page.mouse.move(0, 0)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("document.querySelectorAll('pre > code').forEach(code => code.scrollLeft = 1e6)")
        over, below, beside, *colours = page.evaluate(COPIED)
        assert over < 0
        assert below < 1, "the second line, too, is under the button"
        assert beside < 1, "the first line goes on behind the button"
        icon, ground, code = ([float(n) for n in re.findall(r"[\d.]+", colour)] for colour in colours)
        assert ground == code
        assert len(ground) == 3, "what is under the button shines through"
        assert contrast(icon, ground) >= 3  # WCAG 2.1, 1.4.11


def contrast(one: list[float], other: list[float]) -> float:
    """Return the contrast of two opaque colours by WCAG 2.

    >>> round(contrast([0, 0, 0], [255, 255, 255]), 9)
    21.0
    """
    assert len(one) == len(other) == 3

    def light(colour: list[float]) -> float:
        parts = [c / 255 for c in colour]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


# How far the underline of every linked name lies below the lowest ink of its underscores, both from the baseline.
UNDERLINED = """() => [...document.querySelectorAll('article a:has(> code)')].map(link => {
  const ink = document.createElement('canvas').getContext('2d')
  const look = getComputedStyle(link.querySelector('code'))
  ink.font = `1000px ${look.fontFamily}`  // large: the ink of a small font is given in whole pixels
  const depth = ink.measureText('_').actualBoundingBoxDescent / 1000 * parseFloat(look.fontSize)
  return parseFloat(getComputedStyle(link).textUnderlineOffset) - depth
})"""

# How far code that is scrolled to its end reaches under the copy button, how far the button's ground reaches below the
# first line, and what is left beside it; the colours of icon, ground and code.
COPIED = """() => {
  const gaps = [...document.querySelectorAll('pre:has(.md-code__nav)')].map(pre => {
    const code = pre.querySelector('code'), range = document.createRange()
    const box = code.getBoundingClientRect(), nav = pre.querySelector('.md-code__nav').getBoundingClientRect()
    range.selectNodeContents(code)
    const end = Math.max(...[...range.getClientRects()].map(line => line.right))
    const look = getComputedStyle(code), first = parseFloat(look.paddingTop) + parseFloat(look.lineHeight)
    return [end - nav.left, nav.bottom - box.top - first, box.right - nav.right]
  })
  const look = name => getComputedStyle(document.querySelector(name))
  const grounds = ['.md-code__nav', 'pre > code'].map(name => look(name).backgroundColor)
  return [...[0, 1, 2].map(k => Math.max(...gaps.map(gap => gap[k]))), look('.md-code__button').color, ...grounds]
}"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_not_there_leads_on_from_any_depth(open_page, axe, scheme):
    page = open_page("no/such/page/", scheme)
    assert page.title() == "Page not found - efcp_ref"
    assert page.locator("h1").inner_text() == "Page not found"
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(250)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")
        assert not violations(page, axe)
    assert {entry.split()[0] for entry in open_page.wrong} <= {"404", "Failed"}, "the page itself, and nothing else"
    for link in page.locator(".doors a").all():
        assert page.request.get(link.evaluate("link => link.href")).ok
    page.fill(".lost input", "woodbury")
    page.click(".lost button")
    page.wait_for_selector(".md-search-result__item")
    assert "woodbury" in page.locator(".md-search-result__list").inner_text().lower()


@pytest.mark.parametrize("path", ["algorithms/alg-1", "learn/notation", "reference/contract", "findings"])
def test_a_table_of_sentences_is_stacked_on_a_phone(open_page, path):
    page = open_page(f"{path}/")
    page.set_viewport_size({"width": 390, "height": 900})
    tables = page.locator("table[data-stacked]")
    assert tables.count()
    for table in tables.all():
        assert table.evaluate("table => table.scrollWidth <= table.parentNode.clientWidth + 1")
        assert table.locator("td[data-label]").first.evaluate("cell => getComputedStyle(cell).display") == "block"


@pytest.mark.parametrize("name", ["paper.algorithm_6", "fast", "oracle"])
def test_a_signature_is_read_without_scrolling_on_a_phone(open_page, name):
    page = open_page(f"reference/api/efcp_ref.{name}/")
    page.set_viewport_size({"width": 390, "height": 900})
    wide = "codes => codes.filter(code => code.scrollWidth > code.clientWidth + 1).map(code => code.textContent)"
    assert page.locator(".doc-signature").count() > 8
    assert page.locator(".doc-signature code").evaluate_all(wide) == []
    broken = "arrows => arrows.filter(arrow => arrow.getClientRects().length > 1).length"
    arrows = page.locator(".doc-signature .o")
    assert arrows.evaluate_all(broken) == 0
    assert arrows.count() > 8 or name != "paper.algorithm_6"


def test_search_finds_sparse_mfac(open_page):
    page = open_page("")
    page.click("[data-md-component=search-query]")
    page.keyboard.type("sparse_mfac", delay=20)
    page.wait_for_selector(".md-search-result__item")
    assert "sparse_mfac" in page.locator(".md-search-result__list").inner_text()


def shown(page: Any) -> dict[str, Any]:
    """Return what the player shows of the function that is running: name -> exact values."""
    return page.evaluate("""() => {
      const numbers = strip => [...strip.querySelectorAll('.cell')].map(cell => JSON.parse(cell.dataset.value))
      return Object.fromEntries([...document.querySelectorAll('.frame:not(.outer) .var')].map(row => {
        const rows = [...row.querySelectorAll('.strip')].map(numbers)
        return [row.dataset.name, row.querySelector('.matrix') ? rows : rows[0]]
      }))
    }""")


@pytest.mark.parametrize("key", printed.algorithms())
def test_the_player_by_mouse_and_keyboard_ends_on_what_python_computed(open_page, key):
    from _build.paper import PAGES
    from _build.record import CASES

    from efcp_ref.tracing import trace

    page = open_page(f"algorithms/{PAGES[key]}/")
    for number, case in enumerate(CASES[key]):
        last = [e for e in trace(case.run).events if e.line.split(":")[0] == key][-1]
        page.select_option(".player select", str(number))
        slider = page.locator(".player input[type=range]")
        end = int(slider.get_attribute("max"))
        assert slider.input_value() == "0"
        forth, back = page.locator("[aria-label='step forward']"), page.locator("[aria-label='step back']")
        first = shown(page)
        forth.click()
        forth.click()
        assert slider.input_value() == str(min(2, end))
        back.click()
        back.click()
        assert shown(page) == first
        page.locator(".player").focus()
        for _ in range(end + 3):
            page.keyboard.press("ArrowRight")
        assert slider.input_value() == str(end)
        row = page.locator(".listing tr[aria-current=step]")
        assert row.count() == 1
        assert row.get_attribute("data-n") == last.line.split(":")[1]
        assert f"Step {end + 1} of {end + 1}" in page.locator(".status").inner_text()
        values = shown(page)
        compared = 0
        for name, value in last.variables.items():
            if isinstance(value, np.ndarray) and name in values and value.ndim < 3:
                assert values[name] == value.tolist(), name
                compared += 1
        assert compared
        page.keyboard.press("ArrowLeft")
        assert slider.input_value() == str(end - 1)
        page.keyboard.press("Home")
        assert shown(page) == first
        page.keyboard.press("End")
        assert slider.input_value() == str(end)
    assert not open_page.wrong


def test_space_plays_and_pauses(open_page):
    page = open_page("algorithms/alg-5/")
    page.locator(".player").focus()
    page.keyboard.press("Space")
    assert page.locator(".play").inner_text() == "Pause"
    page.wait_for_function("document.querySelector('.player').dataset.step >= 2", timeout=15_000)
    page.keyboard.press("Space")
    assert page.locator(".play").inner_text() == "Play"


def test_the_ring_says_which_row_is_written_next(open_page):
    page = open_page("algorithms/alg-4/")
    page.locator(".player").focus()
    page.keyboard.press("End")
    label = page.locator("svg.ring").get_attribute("aria-label")
    assert "row 0: 0 1, 4 -2" in label
    assert "Row 1 is written next" in label


def test_an_anchor_of_a_line_is_in_view(open_page):
    page = open_page("algorithms/alg-3/#alg-3-line-26")
    page.wait_for_timeout(300)
    assert page.evaluate("""() => { const r = document.getElementById('alg-3-line-26').getBoundingClientRect()
      return r.top >= 0 && r.bottom <= innerHeight }""")
