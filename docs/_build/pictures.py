"""Take the pictures of the README from the built site: `python docs/_build/pictures.py`, after docs/build.py.

Needs chromium and playwright. Each is a player at one step, with a palette of 128 colours.
"""

from __future__ import annotations

import functools
import http.server
import io
import shutil
import threading
from pathlib import Path

DOCS = Path(__file__).parents[1]
WIDTH, HEIGHT, SHOWN = 1300, 1400, 980
SHOTS = {  # name: page, recorded input, step, scheme
    "player-sparse-mfac": ("algorithms/alg-1/", 3, 13, "light"),
    "player-sp-tree": ("algorithms/alg-2/", 1, 13, "dark"),
    "player-ggt-window": ("algorithms/alg-4/", 0, 22, "light"),
}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def taken(browser: object, url: str, number: int, step: int, scheme: str) -> bytes:
    """Return a PNG of the player of one page at one step of one recorded input."""
    page = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme).new_page()  # type: ignore[attr-defined]
    page.goto(url, wait_until="load")
    page.wait_for_selector(".player[data-ready]")
    page.wait_for_selector(".katex")
    page.select_option(".player select", str(number))
    page.locator(".player input[type=range]").evaluate(
        "(slider, step) => { slider.value = step; slider.dispatchEvent(new Event('input')) }", step
    )
    box = page.locator(".player").bounding_box()
    return page.screenshot(clip={**box, "height": min(SHOWN, box["height"])})


def main() -> None:
    """Serve build/site to chromium and write docs/pictures."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    handler = functools.partial(Quiet, directory=str(DOCS.parent / "build" / "site"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, (page, number, step, scheme) in SHOTS.items():
            shot = taken(browser, f"http://127.0.0.1:{server.server_address[1]}/{page}", number, step, scheme)
            picture = Image.open(io.BytesIO(shot)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
            picture.save(DOCS / "pictures" / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
