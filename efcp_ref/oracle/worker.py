"""The child process: it imports a target, runs one case after another, and answers through its own pipe.

Started by `efcp_ref.oracle.targets` with two file descriptors that are not 0, 1 or 2, so that whatever the target
prints cannot disturb the messages. It may be killed at any moment; nothing of it is needed afterwards.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import json
import os
import resource
import signal
import sys
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from efcp_ref.contract import NAMES
from efcp_ref.oracle import results, wire

DECLARATIONS = ("ARITHMETIC", "SOLVER", "ORTHOGONALISATION", "NAN", "READINGS", "DTYPES", "ARRAYS", "DEVICE")


class Missing(Exception):
    """There is no such file, module or object."""


def part(spec: str) -> tuple[str, str]:
    """Split ``where:object`` into both; the object may be empty or dotted.

    >>> part("my_code.py:Fast"), part("package.module")
    (('my_code.py', 'Fast'), ('package.module', ''))
    """
    where, colon, inside = spec.rpartition(":")
    named = colon and all(word.isidentifier() for word in inside.split("."))
    return (where, inside) if named else (spec, "")


def is_path(where: str) -> bool:
    """Whether a target is given as a path rather than as a module's name."""
    return where.endswith(".py") or os.sep in where


def _module_of(path: Path) -> tuple[Path, str]:
    """Folder to import from and dotted name of a file, which may lie inside a package."""
    path = path.resolve()
    names = [] if path.name == "__init__.py" else [path.stem]
    root = path.parent
    while (root / "__init__.py").exists():
        names.insert(0, root.name)
        root = root.parent
    return root, ".".join(names)


def _from_file(path: Path) -> types.ModuleType:
    if path.is_dir():
        path = path / "__init__.py"
    if not path.is_file():
        raise Missing(f"no such file: {path}")
    root, name = _module_of(path)
    sys.path.insert(0, str(root))
    if "." in name or path.name == "__init__.py":
        return importlib.import_module(name)
    name = name if name.isidentifier() and name not in sys.modules else f"target_{name}"  # json.py stays ours to use
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Missing(f"{path} is no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _from_name(name: str) -> types.ModuleType:
    if not all(word.isidentifier() for word in name.split(".")):
        raise Missing(f"{name!r} is neither a file ending in .py nor the name of a module")
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as why:
        if why.name and (name == why.name or name.startswith(why.name + ".")):
            raise Missing(f"no module named {why.name!r}, and no file of that name") from None
        raise


def load(spec: str) -> tuple[types.ModuleType, Any]:
    """Import a target; return its module and the object that carries the operations.

    Raises:
        Missing: no such file, module or object. Whatever the import raises passes through.
    """
    where, inside = part(spec)
    module = _from_file(Path(where)) if is_path(where) else _from_name(where)
    target: Any = module
    for word in inside.split(".") if inside else ():
        if not hasattr(target, word):
            near = difflib.get_close_matches(word, dir(target), 3)
            raise Missing(f"{where} holds no {word!r}" + (f"; it holds {', '.join(near)}" if near else ""))
        target = getattr(target, word)
    return module, _ready(target)


def _ready(target: Any) -> Any:
    """A namespace of operations: a class whose functions take ``self`` is constructed, a mapping becomes an object."""
    if isinstance(target, Mapping):
        return types.SimpleNamespace(**target)
    if inspect.isclass(target):
        own = [inspect.getattr_static(target, n, None) for n in NAMES]
        if any(inspect.isfunction(f) and next(iter(inspect.signature(f).parameters), "") == "self" for f in own):
            return target()
    return target


def offers(target: Any) -> tuple[list[str], list[str]]:
    """Names of the contract that a target offers, and notes on names that it uses for something else."""
    offered, notes = [], []
    for name in NAMES:
        try:
            found = getattr(target, name)
        except AttributeError:
            continue
        except Exception:  # offered, and broken: calling it will say how
            found = print
        if callable(found):
            offered.append(name)
        else:
            notes.append(f"{name} is {results.describe(found)}, not a function: taken as not offered")
    return offered, notes


def _declared(module: types.ModuleType, target: Any) -> dict[str, Any]:
    found = {n: getattr(target, n, getattr(module, n, None)) for n in DECLARATIONS}
    return {n: json.loads(json.dumps(v, default=_text)) for n, v in found.items() if v is not None and v == v}


def _text(value: Any) -> Any:
    """``numpy.float32``, ``torch.float32`` and the like by their plain names."""
    return (
        list(value)
        if isinstance(value, (set, frozenset))
        else str(getattr(value, "__name__", value)).removeprefix("torch.")
    )


def hello(spec: str) -> tuple[Any, dict[str, Any]]:
    """Import the target and say what it is: ``missing``, ``broken``, or what it offers and declares."""
    try:
        module, target = load(spec)
        offered, notes = offers(target)
        names = [n for n in dir(target) if not n.startswith("_")][:500]
        return target, {"offered": offered, "notes": notes, "names": names, "declared": _declared(module, target)}
    except Missing as why:
        return None, {"missing": str(why)}
    except BaseException as why:  # a target's import may raise anything, sys.exit included
        return None, {"broken": said(why), "traceback": trail(why)}


def said(why: BaseException) -> str:
    """Say in one line what was raised.

    >>> said(ValueError("no")), said(SystemExit(3))
    ('raised ValueError: no', 'called sys.exit(3)')
    """
    if isinstance(why, SystemExit):
        return f"called sys.exit({'' if why.code is None else why.code})"
    try:
        text = " ".join(str(why).split())[:300]
    except Exception:
        text = "(its message cannot be read)"
    return f"raised {type(why).__name__}" + (f": {text}" if text else "")


def trail(why: BaseException) -> str:
    """Return the end of a traceback, from the target's own first line on."""
    with contextlib.suppress(Exception):
        frames = traceback.extract_tb(why.__traceback__)
        own = [
            f
            for f in frames
            if os.path.dirname(f.filename) != os.path.dirname(__file__) and "importlib" not in f.filename
        ]
        return "".join(traceback.format_list(own[-4:]) + traceback.format_exception_only(why))[-2000:]
    return ""


def answer(target: Any, case: Mapping[str, Any]) -> dict[str, Any]:
    """Run one case; whatever goes wrong inside the target becomes ``{"error": kind, "reason": words}``."""
    try:
        hand = {"arrays": case["arrays"], "device": case["device"], "flags": tuple(case["flags"])}
        reply = results.run(
            getattr(target, case["operation"]), case["operation"], case["arguments"], case["dtype"], hand
        )
        return _sendable(reply)
    except results.ResultShape as why:
        return {"error": "result shape", "reason": str(why)}
    except MemoryError as why:
        return {"error": "memory", "reason": said(why), "traceback": trail(why)}
    except BaseException as why:
        return {
            "error": "exit" if isinstance(why, SystemExit) else "raised",
            "reason": said(why),
            "traceback": trail(why),
            "type": type(why).__name__,
        }


def _sendable(reply: dict[str, Any]) -> dict[str, Any]:
    for name, a in reply["results"].items():
        if hasattr(a, "nbytes") and a.nbytes > wire.LARGEST // 2:
            raise results.ResultShape(
                f"{name} has shape {a.shape}, {a.nbytes} bytes: far more than the contract asks for"
            )
    return reply


def _read(fd: int, size: int) -> bytearray:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        n = os.readv(fd, [view[got:]])
        if not n:
            os._exit(0)  # the oracle is gone
        got += n
    return data


def _send(fd: int, body: Any) -> None:
    view = memoryview(wire.encode(body))
    while view:
        view = view[os.write(fd, view) :]


def _limit(memory: float) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory > 0:
        size = int(memory * 2**30)
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (size if hard < 0 else min(size, hard), hard))


def main(arguments: list[str]) -> None:
    """Serve: ``main([target, read descriptor, write descriptor, memory in GiB])``."""
    spec, source, sink, memory = arguments[0], int(arguments[1]), int(arguments[2]), float(arguments[3])
    for fd in (source, sink):
        os.set_inheritable(fd, False)
    _limit(memory)
    sys.argv = [spec]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    target, about = hello(spec)
    _send(sink, about)
    while True:
        header, payload = wire.lengths(_read(source, wire.PREFIX.size))
        case = wire.decode(_read(source, header), _read(source, payload))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 2 * case["timeout"] + 5)  # ends a hang even if the oracle was killed
        reply = answer(target, case)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(sink, {"number": case["number"], **reply})


if __name__ == "__main__":
    main(sys.argv[1:])
