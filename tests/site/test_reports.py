"""The page that ``check --report`` writes, in the same browser: no request, no script, accessible, at both widths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from efcp_ref.oracle.chunks import Door
from efcp_ref.oracle.report.run import check, check_together
from tests.site.test_browser import RULES, SCHEMES, WIDTHS

pytestmark = pytest.mark.browser

SP = "def sp(indices, values, g):\n    return (values * g[indices]).sum(1){}\n"
TARGETS = {  # what the page shows: source of the target, words on the page
    "passing": (SP.format(""), ["conforms", "1 ✓ pass"]),
    "failing": (
        SP.format(" * 1.01") + "def top_k(a, k):\n    print('hello')\n    raise ValueError('<b>no</b>')\n"
        "def mfac_direction(G, lam, x):\n    import numpy as np\n    S, h = G @ G.T, G @ x\n"
        "    c = np.linalg.solve(S + lam * np.eye(len(G)), h) / lam\n    return x / lam - c @ G, S, h, c\n",
        ["fails", "✗ fail", "! error", "Where omega departs", "The smallest case found", "Reproduce it",
         "The reference at this line", "Algorithm 2", "<b>no</b>", "hello", "agrees with"],
    ),
    "empty": ("def nothing_of_the_contract():\n    pass\n", ["nothing was judged", "it offers no operation"]),
    "broken": ("raise RuntimeError('not today')\n", ["could not be imported", "not today"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One report of each kind, and one of several workers."""
    found = {}
    for name, (source, _) in TARGETS.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "mine.py").write_text(source)
        check(Door(str(folder / "mine.py")), None, 6, folder=folder / "report", shrink_seconds=3)
        found[name] = folder / "report" / "index.html"
    folder = tmp_path_factory.mktemp("workers")
    check_together("efcp_ref", 2, ["topk_sgd"], 3, folder=folder)
    return found | {"workers": folder / "index.html"}


@pytest.mark.parametrize("name", [*TARGETS, "workers"])
def test_a_report_is_accessible_and_asks_nobody_for_anything(browser: Any, axe: str, reports: dict[str, Path], name):
    context = browser.new_context(viewport={"width": WIDTHS[0], "height": 900})
    page, wrong, found = context.new_page(), [], []
    address = reports[name].as_uri()
    page.on("request", lambda r: wrong.append(r.url) if r.url != address else None)
    page.on("console", lambda m: wrong.append(m.text))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.goto(address, wait_until="load")
    assert not wrong
    backs = set()
    page.evaluate(axe)
    for scheme in SCHEMES:
        for width in WIDTHS:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            backs.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            if page.evaluate("document.documentElement.scrollWidth > innerWidth + 1"):
                found.append(f"{scheme} {width}: the page scrolls sideways")
            only = json.dumps([*RULES["values"], "best-practice"])
            result = page.evaluate(f"axe.run(document, {{ runOnly: {only} }})")
            for violation in result["violations"]:
                nodes = [" ".join(map(str, node["target"])) for node in violation["nodes"][:3]]
                found.append(f"{scheme} {width}: {violation['id']} ({len(violation['nodes'])}): {nodes}")
    text = page.locator("body").inner_text()
    context.close()
    assert not found
    assert len(backs) == len(SCHEMES)
    assert all(words in text for words in TARGETS.get(name, ("", ["drift apart"]))[1])


def test_every_wide_part_scrolls_by_keyboard(browser: Any, reports: dict[str, Path]):
    """Whatever is wider than a phone is a region that takes the focus and moves with the arrow keys."""
    context = browser.new_context(viewport={"width": WIDTHS[1], "height": 900})
    page = context.new_page()
    page.goto(reports["failing"].as_uri())
    wide = page.locator(".scroll, pre").filter(visible=True)
    moved = 0
    for i in range(wide.count()):
        part = wide.nth(i)
        if part.evaluate("p => p.scrollWidth > p.clientWidth + 1"):
            part.focus()
            page.keyboard.press("ArrowRight")
            for _ in range(100):  # the page's own policy forbids to wait for a function
                if part.evaluate("p => p.scrollLeft > 0"):
                    break
                page.wait_for_timeout(50)
            assert part.evaluate("p => p.scrollLeft > 0")
            moved += 1
    context.close()
    assert moved
