"""The built site, served on this machine alone, and a browser that reaches nothing else."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))


def site_folder() -> Path:
    """Where the built site is: EFCP_SITE, else build/site."""
    return Path(os.environ.get("EFCP_SITE", ROOT / "build" / "site"))


@pytest.fixture(scope="session")
def site() -> Path:
    folder = site_folder()
    if not (folder / "index.html").exists():
        pytest.skip("the site is not built: python docs/build.py")
    if "EFCP_SITE" not in os.environ:
        from build import stamp

        if (folder.parent / "stamp").read_text(encoding="utf-8") != stamp():
            pytest.skip("the site is older than what it is made from: python docs/build.py")
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # a connection is kept

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """As servers of pages do: an address that is not there is answered by 404.html, whatever its depth."""
        page = Path(self.directory) / "404.html"
        if code != 404 or not page.exists():
            return super().send_error(code, message, explain)
        body = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=3600")  # as a server of pages would: scripts are fetched once
        super().end_headers()


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    program = os.environ.get("EFCP_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not program:
        pytest.skip("no chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[docs]'")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def axe() -> str:
    folder = Path(os.environ.get("EFCP_AXE", ROOT / "build" / "npm" / "node_modules" / "axe-core"))
    if not (folder / "axe.min.js").exists():
        pytest.skip("no axe-core: npm install --prefix build/npm axe-core@4")
    return (folder / "axe.min.js").read_text(encoding="utf-8")
