"""Door 3: files. Writes, reads and compares bundles of vectors, and judges the outputs that a program left.

A bundle is a folder: ``manifest.json``, the schema of its cases, and per case ``OPERATION/NUMBER/case.json`` with the
``.npy`` files of its arrays; ``expected-NAME.npy`` are the results in exact arithmetic (`efcp_ref.oracle.rational`),
rounded once. A program writes ``OPERATION/NUMBER/out/NAME.npy``, in the bundle or in a folder laid out like it.
Everything is read by `efcp_ref.oracle.hostile`: nothing is unpickled, no link is followed.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import sha256
from math import prod
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from efcp_ref.contract import NAMES, OPERATIONS, OPTIMIZERS
from efcp_ref.oracle import hostile, rational, results, vector_cases
from efcp_ref.oracle.core import Case
from efcp_ref.oracle.hostile import Hostile, Missing
from efcp_ref.oracle.judge import Report, Seen, judge
from efcp_ref.oracle.targets import Outcome, UsageError, declared, known
from efcp_ref.oracle.textmode import named_results
from efcp_ref.paper import _validate as check

VERSION = 1
GENERATOR = "efcp_ref.oracle.vector_cases"
SCHEMA = Path(__file__).with_name("vectors.schema.json")
SMALL = 1 << 20  # bytes of one JSON file
MOST = 100_000  # cases of one bundle
LARGEST_NUMBER = 1 << 20  # of d, m, k, T, block_size
EXPECTED, OUT = "expected-", "out"
README = """# Vectors of efcp_ref, version 1

Every folder OPERATION/NUMBER is one case: `case.json` (its form is in `case.schema.json`), the arrays of its arguments
as `.npy` files, and `expected-NAME.npy`, the results in exact arithmetic, rounded once to float64. Inputs are integers
times powers of two. Where several results are right (ties of Top-k, the basis P, eigenvectors) `expected` holds one of
them or leaves the name out; the judge accepts all of them.

A program reads a case and writes `OPERATION/NUMBER/out/NAME.npy`. Then:

    efcp-ref check --outputs DIR

`efcp-ref vectors DIR` writes this folder again, bit for bit.
"""


@dataclass(frozen=True)
class Vector:
    """One case of a bundle, as read."""

    id: str  # "sp/0003": its folder
    case: Case
    expected: Mapping[str, np.ndarray]
    why: Mapping[str, str]  # bug, effect
    source: Mapping[str, Any]  # generator, version, seed, index, sha256


# --- expected results ---------------------------------------------------------------------------------------------

AMBIGUOUS = ("eigenvectors", "P", "Q")  # several right ones


def expected(operation: str, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the results that are unique, exact and rounded once; for P and Q their product P Q^T.

    >>> expected("sp", {"indices": np.array([[1]]), "values": np.array([[3.0]]), "g": np.array([5.0, 7.0])})
    {'omega': array([21.])}
    """
    given = [v for n, v in arguments.items() if n not in ("gradients", *_unused(operation))]
    if operation in OPTIMIZERS:
        it = getattr(rational, operation)(*given)
        u = np.stack([it.step(g) for g in arguments["gradients"]])
        last = it.state() if hasattr(it, "state") else {"xi": rational.rounded(it.xi)}
        return {"u": u, **{f"state.{n}": np.asarray(v) for n, v in last.items() if n not in ("t", "row")}}
    if operation == "power_compress":
        g = rational.exact(arguments["g"])
        P, Q = rational.projected(g.reshape(len(g), -1), rational.exact(arguments["Q"]))
        return {"PQ": rational.rounded(P @ Q.T)}
    found = getattr(rational, operation)(*given)
    found = found if isinstance(found, tuple) else (found,)
    return {n: np.asarray(a) for n, a in zip(OPERATIONS[operation].outputs, found, strict=False) if n not in AMBIGUOUS}


def _unused(operation: str) -> tuple[str, ...]:
    """Arguments that the second oracle does not take: the layout of rows that are given whole."""
    whole = operation in OPERATIONS and "indices" in {a.name for a in OPERATIONS[operation].arguments}
    return ("block_size", "density") if whole else ()


# --- writing ------------------------------------------------------------------------------------------------------


def _array_json(name: str, a: np.ndarray, files: dict[str, bytes]) -> dict[str, Any]:
    files[f"{name}.npy"] = hostile.npy_bytes(a)
    return {"npy": f"{name}.npy", "dtype": a.dtype.name, "shape": list(a.shape)}


def _value_json(name: str, value: Any, files: dict[str, bytes]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_value_json(f"{name}.{i}", v, files) for i, v in enumerate(value)]
    if isinstance(value, np.ndarray):
        return _array_json(name, value, files)
    if isinstance(value, np.generic):
        value = value.item()
    return float(value) if isinstance(value, Fraction) else value


def _digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 of the names and hashes of all arrays, in alphabetical order."""
    return sha256("".join(f"{n} {sha256(files[n]).hexdigest()}\n" for n in sorted(files)).encode()).hexdigest()


def case_files(
    case: Case, why: Mapping[str, str], wanted: Mapping[str, np.ndarray], id: str, generator: str = GENERATOR
) -> dict[str, bytes]:
    """Return the files of one case by name, ``case.json`` among them."""
    files: dict[str, bytes] = {}
    arguments = {n: _value_json(n, v, files) for n, v in case.arguments.items()}
    results = {n: _array_json(f"{EXPECTED}{n}", a, files) for n, a in wanted.items()}
    source = {"generator": generator, "version": VERSION, "seed": case.seed, "index": case.index}
    body = {
        "format": "efcp-ref vector", "version": VERSION, "id": id, "operation": case.operation, "family": case.family,
        "label": case.label, "flags": sorted(case.flags), "dtype": case.dtype, "arguments": arguments,
        "expected": results, "why": dict(why), "source": {**source, "sha256": _digest(files)},
    }  # fmt: skip
    return {"case.json": (json.dumps(body, indent=1, allow_nan=False) + "\n").encode(), **files}


def save(root: Path, case: Case, id: str) -> Path:
    """Write one case (for example one that failed) as a vector without expected results; return its folder.

    Raises:
        Hostile: the id is no path below the folder.
    """
    folder = root.joinpath(*hostile.parts(id))
    why = {"bug": case.label or "unknown", "effect": case.why or "unknown"}
    _store(folder, case_files(case, why, {}, id, "efcp_ref.oracle.cases"))
    return folder


def _store(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def standard(operations: Iterable[str] = NAMES, seed: int = 0) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the id and the files of every standard case."""
    for operation in operations:
        for number, recipe in enumerate(vector_cases.recipes(operation)):
            arguments = vector_cases.make(operation, seed, number)
            case = Case(operation, recipe.family, recipe.label, seed, number, arguments, recipe.flags)
            why = {"bug": recipe.bug, "effect": recipe.effect}
            id = f"{operation}/{number:04d}"
            yield id, case_files(case, why, expected(operation, arguments), id)


def write(root: Path, operations: Iterable[str] | None = None) -> int:
    """Write the standard bundle into a new or empty folder; return the number of cases.

    Raises:
        UsageError: the folder is not empty, or an operation does not exist.
    """
    chosen = [n for n in NAMES if operations is None or n in {known(o) for o in operations}]
    if root.is_symlink() or (root.exists() and (not root.is_dir() or any(root.iterdir()))):
        raise UsageError(f"{root} is not a new or empty folder; vectors are written into one of their own")
    entries = []
    for id, files in standard(chosen):
        _store(root.joinpath(*id.split("/")), files)
        entries.append({"id": id, "sha256": sha256(files["case.json"]).hexdigest()})
    manifest = {"format": "efcp-ref vectors", "version": VERSION, "generator": GENERATOR, "cases": entries}
    _store(root, {
        "manifest.json": (json.dumps(manifest, indent=1) + "\n").encode(),
        "case.schema.json": SCHEMA.read_bytes(), "README.md": README.encode(),
    })  # fmt: skip
    return len(entries)


def _files(root: Path) -> dict[str, bytes]:
    """Every file of a bundle; what programs left in ``out`` is no part of it."""
    paths = sorted(p for p in root.rglob("*") if p.is_file() and OUT not in p.relative_to(root).parts)
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in paths}


def differences(root: Path, operations: Iterable[str] | None = None) -> list[str]:
    """Return the files of a bundle that differ from what `write` gives here, are missing or are too many.

    Of some operations, only their own folders are compared: the manifest names all of them.
    """
    chosen = None if operations is None else {known(o) for o in operations}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "v", chosen)
        fresh, there = _files(Path(folder) / "v"), _files(root)
    names = [n for n in fresh.keys() | there.keys() if chosen is None or n.split("/")[0] in chosen]
    return sorted(n for n in names if fresh.get(n) != there.get(n))


# --- reading ------------------------------------------------------------------------------------------------------


def _array_of(root: Path, id: str, value: dict[str, Any], files: dict[str, bytes]) -> np.ndarray:
    name = hostile.field(value, "npy", str)
    if len(hostile.parts(name)) > 1:
        raise Hostile(f"npy {name!r}, must be a name in the case's own folder")
    data = files[name] = hostile.read_inside(root, f"{id}/{name}")
    found, dtype = hostile.npy(data), hostile.dtype_named(value.get("dtype"))
    bits = np.dtype("<u2") if dtype.name == "bfloat16" else dtype
    if found.dtype != bits or list(found.shape) != value.get("shape"):
        raise Hostile(f"{id}/{name} holds {found.dtype} {found.shape}, case.json says {value.get('shape')} of {dtype}")
    return found.view(dtype)


def _value_of(root: Path, id: str, value: Any, files: dict[str, bytes]) -> Any:
    if isinstance(value, dict):
        return _array_of(root, id, value, files)
    if isinstance(value, list):
        return [_value_of(root, id, v, files) for v in value]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise Hostile(f"{id}: argument {str(value)[:40]!r}, must be a number, an array or a list of them")
    return value


def _text(body: Any, name: str, choices: Iterable[str] | None = None) -> str:
    found = hostile.field(body, name, str)
    if choices is not None and found not in choices:
        raise Hostile(f"{name} is {found[:40]!r}, must be one of {', '.join(choices)}")
    return found


def _header(body: Any, format: str) -> None:
    if _text(body, "format") != format or hostile.field(body, "version", int) != VERSION:
        said = f"format {body['format'][:40]!r} version {str(body.get('version'))[:20]}"
        raise Hostile(f"{said}, expected {format!r} version {VERSION}")


def load(root: Path, id: str, digest: str | None = None) -> Vector:
    """Read one case of a bundle.

    Args:
        root: the bundle's folder; nothing outside it is opened.
        id: the case's folder in it.
        digest: SHA-256 that its ``case.json`` must have.

    Raises:
        Hostile: anything in it breaks a rule; the message says which.
        Missing: a file is not there.
    """
    data = hostile.read_inside(root, f"{id}/case.json", SMALL)
    if digest is not None and sha256(data).hexdigest() != digest:
        raise Hostile(f"{id}/case.json does not have the SHA-256 of the manifest")
    body = hostile.json_value(data, SMALL)
    _header(body, "efcp-ref vector")
    operation = _text(body, "operation", NAMES)
    files: dict[str, bytes] = {}
    given, wanted = hostile.field(body, "arguments", dict), hostile.field(body, "expected", dict)
    arguments = {n: _value_of(root, id, v, files) for n, v in given.items()}
    if not all(isinstance(v, dict) for v in wanted.values()):
        raise Hostile(f"{id}: expected must hold arrays")
    arrays = {n: _array_of(root, id, v, files) for n, v in wanted.items()}
    source, why = hostile.field(body, "source", dict), hostile.field(body, "why", dict)
    if _text(source, "sha256") != _digest(files):
        raise Hostile(f"{id}: its arrays do not have the SHA-256 of case.json")
    return Vector(id, _case(body, operation, arguments, source), arrays, why, source)


def _case(body: Any, operation: str, arguments: dict[str, Any], source: dict[str, Any]) -> Case:
    flags = hostile.field(body, "flags", list)
    if len(flags) > 20 or not all(isinstance(f, str) for f in flags):
        raise Hostile("flags must be a list of names")
    seed, index = hostile.field(source, "seed", int), hostile.field(source, "index", int)
    why = hostile.field(body, "why", dict)
    try:
        arguments = legal(operation, arguments)
    except (ValueError, TypeError) as wrong:
        raise Hostile(f"arguments of {operation}: {wrong}") from None
    return Case(
        operation, _text(body, "family"), _text(body, "label"), seed, index, arguments, frozenset(flags),
        _text(body, "dtype", ("float64", "float32")), f"{why.get('bug')}: {why.get('effect')}",
    )  # fmt: skip


def _number(name: str, value: Any, kind: str) -> Any:
    if kind == "int":
        return check.integer(name, value, 0 if name == "k" else 1, LARGEST_NUMBER)
    if kind == "density":
        check.share(name, value)
        return value
    return check.number(name, value)


def legal(operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments if they are a case of the contract: names, order, types, shapes that fit each other.

    Raises:
        TypeError, ValueError: they are not; the message names the argument.
    """
    declared_ = OPTIMIZERS[operation].parameters if operation in OPTIMIZERS else OPERATIONS[operation].arguments
    names = [a.name for a in declared_] + (["gradients"] if operation in OPTIMIZERS else [])
    if list(arguments) != names:
        raise ValueError(f"they are {', '.join(arguments)[:80]}, must be {', '.join(names)}")
    for a in declared_:
        value = arguments[a.name]
        if a.kind != "list" and isinstance(value, np.ndarray) != bool(a.shape):
            raise TypeError(f"{a.name} is {results.describe(value)}, must be {a.shape or 'a number'}")
        if not a.shape and a.kind != "list":
            _number(a.name, value, a.kind)
        elif isinstance(value, np.ndarray) and value.dtype.kind not in ("iu" if a.kind == "index" else "fV"):
            raise TypeError(f"{a.name} has dtype {value.dtype}")
    sizes = _letters(operation, arguments)
    _sized(operation, arguments, sizes)
    return arguments


def _letters(operation: str, arguments: Mapping[str, Any]) -> dict[str, int]:
    """Length behind every letter of the contract's shapes, the same wherever it stands."""
    sizes = {n: v for n, v in arguments.items() if n in ("d", "m", "k") and not isinstance(v, np.ndarray)}
    entries = [] if operation in OPTIMIZERS or operation == "power_compress" else OPERATIONS[operation].arguments
    sizes = {n: v for n, v in sizes.items() if n != "k"}
    for a in entries:
        letters = [x for x in a.shape.strip("()").replace(" ", "").split(",") if x]
        if not letters:
            continue
        shape = arguments[a.name].shape
        if len(shape) != len(letters) or any(sizes.setdefault(x, n) != n for x, n in zip(letters, shape, strict=True)):
            raise ValueError(f"{a.name} has shape {shape}, must have {a.shape} with {sizes}")
    return sizes


def _sized(operation: str, arguments: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Rules that tie arguments together, and bounds on what a case may make the oracle do."""
    d = sizes.get("d") or sizes.get("p1") or 1
    if sizes.get("m", 1) * d > 1 << 22 or (operation == "scaled_top_k" and d > 1000):
        raise ValueError(f"sizes {dict(sizes)} are larger than any case needs")
    if min(sizes.values(), default=1) < 1:
        raise ValueError(f"sizes {dict(sizes)}, must be at least 1")
    if "k" in arguments:
        check.integer("k", arguments["k"], 0, d)
    if "lam" in arguments or "eps" in arguments:
        name = "lam" if "lam" in arguments else "eps"
        check.positive(name, arguments[name])
    if "indices" in arguments:
        d = len(arguments["g"]) if operation == "sp" else d
        check.check_rows(
            arguments["indices"], arguments["values"], d, arguments["block_size"], arguments["density"]
        )  # fmt: skip
    if operation == "power_compress":
        _tensor("g", arguments["g"].shape, arguments["Q"].shape)
    if operation in OPTIMIZERS:
        _run(operation, arguments)


def _tensor(name: str, shape: tuple[int, ...], Q: tuple[int, ...]) -> None:
    """R25: Q (p2*...*ps, rho) with 1 <= rho <= min(p1, p2*...*ps)."""
    fits = len(shape) >= 2 and min(shape) >= 1 and len(Q) == 2 and Q[0] == prod(shape[1:])
    if not fits or not 1 <= Q[1] <= min(shape[0], Q[0]):
        raise ValueError(f"{name} has shape {shape} and Q {Q}, which do not fit")


def _run(operation: str, arguments: Mapping[str, Any]) -> None:
    g = arguments["gradients"]
    if not isinstance(g, np.ndarray) or g.ndim != 2 or not g.size or g.dtype.kind != "f":
        raise ValueError("gradients must be an array (T, d) of floats")
    d = arguments.get("d", g.shape[1])
    if operation == "low_rank_mfac":
        shapes, Q0 = arguments["shapes"], arguments["Q0"]
        lists = isinstance(shapes, list) and isinstance(Q0, list)
        if not lists or not all(isinstance(s, list) and s for s in shapes):
            raise TypeError("shapes and Q0 must be lists, one entry per layer")
        arguments["shapes"][:] = [tuple(check.integer("shapes", p, 1, LARGEST_NUMBER) for p in s) for s in shapes]
        wide = [s for s in shapes if len(s) > 1]
        if len(wide) != len(Q0) or not all(isinstance(q, np.ndarray) for q in Q0):
            raise ValueError(f"Q0 has {len(Q0)} entries, must have {len(wide)}")
        for shape, q in zip(wide, Q0, strict=True):
            _tensor("a layer", tuple(shape), q.shape)
        d = sum(map(prod, shapes))
    if g.shape[1] != d:
        raise ValueError(f"gradients has shape {g.shape}, must have {d} columns")


def _manifest(root: Path) -> list[tuple[str, str]]:
    """Ids and hashes of a bundle's cases."""
    body = hostile.json_value(hostile.read_inside(root, "manifest.json", 16 * SMALL), 16 * SMALL)
    _header(body, "efcp-ref vectors")
    entries = hostile.field(body, "cases", list)
    if len(entries) > MOST:
        raise Hostile(f"{len(entries)} cases, at most {MOST} are read")
    found = [(_text(e, "id"), _text(e, "sha256")) for e in entries]
    if len({id for id, _ in found}) < len(found):
        raise Hostile("the manifest names a case twice")
    return found


def read(root: Path) -> Iterator[Vector]:
    """Yield every case of a bundle.

    Raises:
        Hostile: see `load`.
    """
    for id, digest in _manifest(root):
        yield load(root, id, digest)


# --- outputs ------------------------------------------------------------------------------------------------------


@dataclass
class Outputs:
    """What a program left in files, as a target."""

    name: str
    root: Path
    ids: Mapping[tuple[str, int], str]  # by operation and index
    offered: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    declared: Any = field(default=None)
    nothing: str = ""  # what was looked for, where nothing is offered
    certify: bool = False  # whether the oracle certifies its own values: `efcp_ref.oracle.certify`

    def run(self, case: Case) -> Outcome:
        """Read the outputs of one case; a file that is missing or broken is an error."""
        folder = f"{self.ids[case.operation, case.index]}/{OUT}"
        try:
            names = self._names(case, folder)
            given = {n: hostile.npy(hostile.read_inside(self.root, f"{folder}/{n}.npy")) for n in names}
            return Outcome(results=named_results(case.operation, given, case.dtype))
        except Hostile as why:
            kind = "missing" if isinstance(why, Missing) else "hostile"
            return Outcome(error=kind, reason=f"{folder}: {why}")
        except results.ResultShape as why:
            return Outcome(error="result shape", reason=f"{folder}: {why}")

    def _names(self, case: Case, folder: str) -> list[str]:
        """Results that must be there, and those that may be and are."""
        if case.operation in OPTIMIZERS:
            keys = _listed(self.root / folder)
            return ["u", *sorted(n for n in keys if n.startswith("state."))]
        op = OPERATIONS[case.operation]
        there = _listed(self.root / folder)
        return [r.name for r in op.results] + [s.name for s in op.stages if s.name in there]

    def close(self) -> None:
        """Nothing is held."""


def _listed(folder: Path) -> set[str]:
    """Names of the ``.npy`` files of a folder, at most ten thousand; no link is followed to read them."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e, _ in zip(entries, range(10_000), strict=False)]
    except OSError:
        return set()
    return {n.removesuffix(".npy") for n in names if n.endswith(".npy")}


def _declarations(root: Path) -> Any:
    """``declared.json`` beside the outputs, as a Python target would declare it."""
    try:
        raw = hostile.json_value(hostile.read_inside(root, "declared.json", SMALL), SMALL)
    except Missing:
        return declared({})
    if not isinstance(raw, dict):
        raise Hostile("declared.json must hold an object")
    return declared(raw)


def check_outputs(
    outputs: Path, vectors: Path | None = None, operations: Iterable[str] | None = None, *, only: int | None = None,
    certify: bool = False, seen: Seen | None = None,
) -> Report:  # fmt: skip
    """Judge what a program left under a folder.

    Args:
        outputs: holds ``OPERATION/NUMBER/out/NAME.npy``, and optionally ``declared.json``.
        vectors: the bundle; default: ``outputs`` is one itself.
        operations: names of the contract; default all that have any output.
        only: judge this number alone.
        certify: enclose every reference value by rationals or balls (`efcp_ref.oracle.certify`).
        seen: called with the row of every case, in order.

    Raises:
        UsageError: no such folder or operation, no bundle, or a bundle that breaks a rule.
    """
    wanted = None if operations is None else {known(o) for o in operations}
    bundle = outputs if vectors is None else vectors
    if not outputs.is_dir():
        raise UsageError(f"no such folder: {outputs}")
    try:
        entries = [v for v in read(bundle) if wanted is None or v.case.operation in wanted]
        about = _declarations(outputs)
    except Missing as why:
        hint = "" if vectors else "; name the bundle with --vectors"
        raise UsageError(f"{bundle} is no bundle of vectors: {why}{hint}") from None
    except Hostile as why:
        raise UsageError(f"{bundle} breaks a rule of the format: {why}") from None
    entries = [v for v in entries if only is None or v.case.index == only]
    ids = {(v.case.operation, v.case.index): v.id for v in entries}
    if len(ids) < len(entries):
        raise UsageError(f"{bundle} holds an operation's number twice")
    offered = [n for n in NAMES if any(o == n and (outputs / id / OUT).is_dir() for (o, _), id in ids.items())]
    name = f"--outputs {quote(str(outputs))}" + (f" --vectors {quote(str(vectors))}" if vectors else "")
    looked = next(iter(ids.values()), "OPERATION/NUMBER")
    nothing = f"no results: none of {len(ids)} cases has a folder such as {outputs / looked / OUT}, for its NAME.npy"
    target = Outputs(name, outputs, ids, tuple(offered), (), about, nothing, certify)
    given = {n: [v.case for v in entries if v.case.operation == n] for n in NAMES}
    most = max((len(given[n]) for n in offered), default=0)
    return judge(target, sorted(wanted) if wanted else None, most, 0, shrink_seconds=0.0, given=given, seen=seen)
