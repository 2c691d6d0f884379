"""Reports that people and machines read: JSON lines, JUnit XML, Markdown, one HTML page; and what changed between two.

>>> from efcp_ref.oracle.report import Stats
>>> Stats().tiers
{}
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "collect": ("Stats", "Spread"),
    "files": ("evidence_of", "write"),
    "run": ("check",),
    "diff": ("Difference", "difference", "read"),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
