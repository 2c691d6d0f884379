"""The oracle: judges any implementation of the paper's operations by the contract.

>>> from efcp_ref.oracle import check_target
>>> check_target("efcp_ref", ["top_k"], cases=3).exit_code
0

Names are imported on first use: the child process that runs a target needs none of them.
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "core": ("Case", "CaseVerdict", "Check", "Declared", "Unit", "unit_of"),
    "judge": ("Failure", "OperationReport", "Report", "assert_conforms", "check_target", "judge_case"),
    "targets": ("BrokenTarget", "Local", "Outcome", "Target", "UsageError"),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE})
