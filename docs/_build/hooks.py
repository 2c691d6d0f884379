"""For mike, which runs mkdocs by itself: make the site of a version smaller before it is committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _build.slim import slimmed


def on_post_build(config: Any) -> None:
    """Called by mkdocs when the site is written."""
    slimmed(Path(config["site_dir"]))
