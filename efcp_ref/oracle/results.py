"""How a target is called, and how what it returned becomes named NumPy arrays.

Runs in the child process (and, for `assert_conforms`, in this one): NumPy only, everything else on first use.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from efcp_ref.contract import OPERATIONS, OPTIMIZERS

LAYOUT = ("block_size", "density")


class ResultShape(Exception):
    """What came back is neither the array nor the tuple, mapping or object that the contract asks for."""


# --- handing over -------------------------------------------------------------------------------------------------


def strided(a: np.ndarray) -> np.ndarray:
    """Return a copy of ``a`` as every other entry of a larger array: right values, non-contiguous memory."""
    if not a.ndim:
        return a.copy()
    room = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    room[..., ::2] = a
    return room[..., ::2]


def _to_torch(a: np.ndarray, device: str | None) -> Any:
    torch = importlib.import_module("torch")
    a = a if a.flags.writeable else a.copy()  # PyTorch has no read-only tensors
    bits = a.view(np.int16) if a.dtype.name == "bfloat16" else a
    t = torch.from_numpy(bits)
    t = t.view(torch.bfloat16) if bits is not a else t
    return t.to(device) if device else t


def _to_jax(a: np.ndarray, device: str | None) -> Any:
    jax = importlib.import_module("jax")
    t = jax.numpy.asarray(a)  # float64 becomes float32 unless jax_enable_x64 is set: exact, by the cases' construction
    return jax.device_put(t, jax.devices(device)[0]) if device else t


def _to_cupy(a: np.ndarray, device: str | None) -> Any:
    cupy = importlib.import_module("cupy")
    a = a.astype(np.float32) if a.dtype.name == "bfloat16" else a  # exact; CuPy has no bfloat16
    with cupy.cuda.Device(int(device or 0)):
        return cupy.asarray(a)


HAND: dict[str, Callable[[np.ndarray, str | None], Any]] = {
    "numpy": lambda a, _: a, "torch": _to_torch, "jax": _to_jax, "cupy": _to_cupy,
}  # fmt: skip


def hand_over(value: Any, arrays: str = "numpy", device: str | None = None, flags: tuple[str, ...] = ()) -> Any:
    """Return a copy of an argument as the target gets it: read-only or strided by flag, of the library it asked for."""
    if isinstance(value, (list, tuple)):
        return type(value)(hand_over(v, arrays, device, flags) for v in value)
    if not isinstance(value, np.ndarray):
        return value
    a = strided(value) if "strided" in flags else value.copy()
    a.flags.writeable = "readonly" not in flags
    return HAND[arrays](a, device)


def changed(given: Any, original: Any) -> bool:
    """Whether an argument no longer holds, bit for bit, what was handed over."""
    if isinstance(original, (list, tuple)):
        return len(given) != len(original) or any(changed(g, o) for g, o in zip(given, original, strict=True))
    if not isinstance(original, np.ndarray):
        return False
    now = to_numpy(given)
    if now.dtype != original.dtype:  # JAX without 64 bits holds float32, exactly
        return not np.array_equal(now.astype(original.dtype), original, equal_nan=True)
    return now.shape != original.shape or now.tobytes() != original.tobytes()


# --- calling ------------------------------------------------------------------------------------------------------


def _accepts(function: Callable[..., Any], arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments: ``block_size, density`` only where the target takes them."""
    names = list(arguments)
    if tuple(names[-2:]) != LAYOUT:
        return list(arguments.values()), {}
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # builtins and extension modules often have no signature
        return list(arguments.values()), {}
    kinds = [p.kind for p in parameters.values()]
    places = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    short, given = list(arguments.values())[:-2], {n: arguments[n] for n in LAYOUT}
    required = sum(p.default is p.empty for p in places)
    if inspect.Parameter.VAR_POSITIONAL in kinds or required > len(short) + 1:
        return short + list(given.values()), {}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return short, given
    return short, {n: v for n, v in given.items() if n in parameters}


def call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a target's operation positionally, in contract order.

    >>> call(lambda a, k: (a, k), {"a": 1, "k": 2}), call(lambda a: a, {"a": 1, "block_size": 2, "density": 0.5})
    ((1, 2), 1)
    """
    positional, by_name = _accepts(function, arguments)
    return function(*positional, **by_name)


def construct(optimizer: Callable[..., Any], parameters: Mapping[str, Any]) -> Any:
    """Construct a target's optimizer by keyword, leaving out ``block_size, density`` where it does not name them."""
    try:
        known = inspect.signature(optimizer).parameters
    except (TypeError, ValueError):
        return optimizer(**parameters)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in known.values())
    return optimizer(**{n: v for n, v in parameters.items() if takes_all or n in known or n not in LAYOUT})


# --- what came back -----------------------------------------------------------------------------------------------


def _from_torch(t: Any) -> np.ndarray:
    t = t.detach()
    t = (t.to_dense() if t.layout != importlib.import_module("torch").strided else t).cpu().resolve_conj().resolve_neg()
    if str(t.dtype) != "torch.bfloat16":
        return t.numpy()
    import ml_dtypes

    return t.view(importlib.import_module("torch").int16).numpy().view(ml_dtypes.bfloat16)


def to_numpy(value: Any) -> np.ndarray:
    """Return an array of any library as a NumPy array, without a copy where the library allows it.

    Raises:
        TypeError: neither ``__array__`` nor ``__dlpack__`` nor numbers.
    """
    home = type(value).__module__.partition(".")[0]
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    if home == "torch" and hasattr(value, "detach"):
        return _from_torch(value)
    if home == "cupy":
        return value.get()
    if hasattr(value, "toarray"):  # SciPy's sparse matrices
        return np.asarray(value.toarray())
    if hasattr(value, "__array__") or isinstance(value, (bool, int, float, complex, list, tuple)):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    raise TypeError(f"{type(value).__name__} is no array: it has neither __array__ nor __dlpack__")


def _bare(value: Any) -> bool:
    """Whether these are Python numbers, which have no precision of their own."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return type(value) in (int, float, list, tuple)  # a list only where it is empty


CASTS = {"float": "iuf", "state": "f", "index": ""}  # kinds of Python number that take the precision of the case


def as_array(name: str, value: Any, dtype: str, kind: str = "float") -> np.ndarray:
    """Return one result as a NumPy array of numbers; Python floats take the precision of the case.

    Raises:
        ResultShape: it cannot be read as an array of numbers.
    """
    try:
        a = to_numpy(value)
        if _bare(value):
            a = a.astype(dtype) if a.dtype.kind in CASTS[kind] else a
            a = a.astype(np.int64) if kind == "index" and not a.size else a  # NumPy reads an empty list as floats
    except Exception as why:
        raise ResultShape(f"{name} is {describe(value)} and cannot be read as an array ({why})") from None
    if a.dtype.kind not in "biufc" and not a.dtype.name.startswith(("bfloat16", "float8", "float6", "float4")):
        raise ResultShape(f"{name} is {describe(value)}: dtype {a.dtype}, an array of numbers is expected")
    return a


def describe(value: Any, deep: bool = True) -> str:
    """Say in a few words what a value is.

    >>> describe((np.zeros(3), None))
    'a tuple of 2: ndarray (3,) float64, None'
    """
    if value is None:
        return "None"
    if isinstance(value, (tuple, list)):
        inside = ", ".join(describe(v, False) for v in value[:6]) + (", ..." if len(value) > 6 else "")
        return f"a {type(value).__name__} of {len(value)}" + (f": {inside}" if deep and value else "")
    if isinstance(value, Mapping):
        return f"a mapping with the keys {', '.join(map(str, list(value)[:8])) or '(none)'}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__} {tuple(value.shape)} {value.dtype}"
    return f"{type(value).__name__} {str(value)[:40]!r}" if isinstance(value, str) else type(value).__name__


def visible(words: str, lines: bool = False) -> str:
    """Return the words of a target with every character that is not printed written out, as Python writes it.

    A terminal obeys some of these characters, and a file of XML may not hold them. Where ``lines`` is false, runs of
    white space become one space each; else line breaks and tabs stay.

    >>> visible("no\\n\\x1b[31mred"), visible("a\\n\\tb\\a", lines=True)
    ('no \\\\x1b[31mred', 'a\\n\\tb\\\\x07')
    """
    if words.isprintable():
        return words
    words = words.replace("\r\n", "\n") if lines else " ".join(words.split())
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in words)


def _is_array(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return (
            bool(value)
            and type(value) in (list, tuple)
            and all(np.ndim(v) == 0 and not isinstance(v, (str, type(None))) for v in value)
        )
    return isinstance(value, (bool, int, float, complex)) or any(
        hasattr(value, n) for n in ("__array__", "__dlpack__", "toarray")
    )


def _by_name(value: Any, needed: tuple[str, ...], names: tuple[str, ...]) -> dict[str, Any] | None:
    """Results picked by name from a mapping, a named tuple or an object; None where there are no such names."""
    if isinstance(value, Mapping):
        return {n: value[n] for n in names if n in value}
    if type(value) in (tuple, list) or not all(hasattr(value, n) for n in needed):
        return None
    return {n: getattr(value, n) for n in names if hasattr(value, n)}


def expected(needed: tuple[str, ...], optional: tuple[str, ...]) -> str:
    """Say what the contract asks an operation to return."""
    one = f"the array {needed[0]}" if len(needed) == 1 else f"a tuple ({', '.join(needed)})"
    more = (
        f", or a tuple ({', '.join(needed + optional)}) of which the last {len(optional)} may be left out or None"
        if optional
        else ""
    )
    return one + more + ", or a mapping or an object with these names"


def normalise(
    value: Any, needed: tuple[str, ...], optional: tuple[str, ...], dtype: str, kinds: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Return what a target returned as ``{name: array}``; optional results that are absent or None are left out.

    Raises:
        ResultShape: anything but the array, a tuple or list in table order, a mapping or an object with these names.

    >>> normalise((np.zeros(2), None), ("u",), ("S", "h", "c"), "float64", {})
    {'u': array([0., 0.])}
    """
    names = needed + optional
    if len(needed) == 1 and _is_array(value):
        found: dict[str, Any] | None = {needed[0]: value}
    elif (
        (found := _by_name(value, needed, names)) is None
        and isinstance(value, (tuple, list))
        and len(value) <= len(names)
    ):
        found = dict(zip(names, value, strict=False))
    if found is None or any(found.get(n) is None for n in needed):
        raise ResultShape(f"expected {expected(needed, optional)}; got {describe(value)}")
    return {n: as_array(n, v, dtype, kinds.get(n, "float")) for n, v in found.items() if v is not None}


# --- one case -----------------------------------------------------------------------------------------------------


def run(
    function: Any, operation: str, arguments: Mapping[str, Any], dtype: str, hand: Mapping[str, Any]
) -> dict[str, Any]:
    """Hand a case to a target; return ``{"results": ..., "mutated": names of inputs that it wrote into}``.

    Args:
        function: the target's function, or its optimizer class.
        operation: contract name.
        arguments: by name, in contract order; an optimizer's hold ``gradients`` last.
        dtype: precision that Python numbers in the result are read in.
        hand: keywords of `hand_over`.

    Raises:
        ResultShape: see `normalise`. Whatever the target raises passes through.
    """
    given = {n: hand_over(v, **hand) for n, v in arguments.items() if n != "gradients"}
    if "density" in given:
        given["density"] = float(given["density"])
    if operation in OPTIMIZERS:
        results, wrote = _optimize(function, given, np.asarray(arguments["gradients"]), dtype, hand)
    else:
        op = OPERATIONS[operation]
        needed, optional = tuple(r.name for r in op.results), tuple(s.name for s in op.stages)
        kinds = {r.name: r.kind for r in op.results if r.kind == "index"}
        results, wrote = normalise(call(function, given), needed, optional, dtype, kinds), set()
    wrote |= {n for n, v in given.items() if changed(v, arguments[n])}
    return {"results": results, "mutated": sorted(wrote)}


def _optimize(
    optimizer: Any, parameters: Mapping[str, Any], gradients: np.ndarray, dtype: str, hand: Mapping[str, Any]
) -> tuple[dict[str, Any], set[str]]:
    """Every step of an optimizer: its directions (T, d) and, where it tells them, its states."""
    it = construct(optimizer, parameters)
    directions, states, wrote = [], [], set()
    for g in gradients:
        given = hand_over(g, **hand)
        u = normalise(it.step(given), ("u",), (), dtype, {})["u"]
        directions.append(np.array(u))  # at once: it may be a buffer that the next step overwrites
        wrote |= {"g"} if changed(given, g) else set()
        if callable(getattr(it, "state", None)):
            states.append(_state(it.state(), dtype))
    shapes = {u.shape for u in directions}
    if len(shapes) > 1:
        raise ResultShape(f"expected the array u of one shape at every step; got shapes {sorted(shapes)}")
    return {"u": np.stack(directions), "states": states or None}, wrote


def _state(state: Any, dtype: str) -> dict[str, np.ndarray]:
    if not isinstance(state, Mapping):
        raise ResultShape(f"expected state() to return a dict of arrays; got {describe(state)}")
    return {str(n): np.array(as_array(f"state {n!r}", v, dtype, "state")) for n, v in state.items() if v is not None}
