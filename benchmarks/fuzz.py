"""Fuzzing the parsers: bytes, JSON, messages, text, arrays, bundles, reports and campaigns that try to do harm.

Run ``python benchmarks/fuzz.py --inputs 150000``; ``--only reports`` runs one parser and keeps the figures of the
others. Hypothesis draws every input: valid data that is then cut, doubled or overwritten (one drawn seed damages it in
ten ways, each counted), and structures of the right kind with wrong contents. Only the error that a parser documents
may leave it. The address space is bounded while it runs, every parser's traced memory is measured on its worst inputs,
and the bundles are read under a hook that notices each file opened outside their folder. Figures go to
``benchmarks/results/doors.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import shlex
import sys
import tempfile
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from efcp_ref import tracing
from efcp_ref.contract import NAMES
from efcp_ref.oracle import campaign, chunks, hostile, pool, process, results, textmode, vectors, wire
from efcp_ref.oracle.cases import generate
from efcp_ref.oracle.core import Check
from efcp_ref.oracle.hostile import Hostile
from efcp_ref.oracle.judge import Failure, OperationReport, Report
from efcp_ref.oracle.record import Row, Tier, restored
from efcp_ref.oracle.report import diff, machines
from efcp_ref.oracle.report.collect import Stats
from efcp_ref.oracle.targets import UsageError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "doors.json"
MEMORY = 64 << 20  # bytes that reading one small input may take

# --- what inputs are made of --------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.sampled_from(["float64", "bfloat16", "object", "O", "<f8", "|O", "../x", "/etc/passwd", "g.npy", "sp", ""]),
)  # fmt: skip
anything = st.recursive(scalars, lambda inner: st.one_of(
    st.lists(inner, max_size=4),
    st.dictionaries(st.sampled_from(["dtype", "shape", "npy", "base64", "array", "tuple", "map", "type", "x"]), inner,
                    max_size=4),
), max_leaves=8)  # fmt: skip
array_json = st.fixed_dictionaries({}, optional={
    "dtype": st.one_of(st.sampled_from([*hostile.KINDS, "bfloat16", "object"]), scalars),
    "shape": st.one_of(st.lists(st.integers(-2, 5), max_size=4), st.lists(st.integers(0, 2**70), max_size=9), scalars),
    "base64": st.one_of(st.text("AB+/=w", max_size=32), scalars),
    "npy": scalars,
})  # fmt: skip


class Batch(list[bytes]):
    """Several inputs that were drawn together."""


WAYS = 10  # in which one drawn seed damages one valid input


def damage(data: bytes, dice: Random) -> bytes:
    """Return the data with up to four parts cut off, inserted, overwritten, doubled or dropped."""
    changed = bytearray(data)
    for _ in range(dice.randrange(5)):
        at, what = dice.randrange(len(changed) + 1), dice.randrange(5)
        if what == 0:
            del changed[at:]
        elif what == 1:
            changed[at:at] = dice.randbytes(dice.randrange(7))
        elif what == 2 and at < len(changed):
            changed[at] = dice.randrange(256)
        elif what == 3:
            changed[at:at] = changed[at : at + 16]
        else:
            del changed[at : at + dice.randrange(1, 9)]
    return bytes(changed)


def damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[Batch]:
    """Valid bytes, damaged in several ways that one drawn seed decides."""
    seeds = st.integers(0, 2**32)
    return st.builds(lambda data, seed: Batch(damage(data, Random(f"{seed} {i}")) for i in range(WAYS)), whole, seeds)


@st.composite
def arrays(draw: Callable[..., Any]) -> np.ndarray:
    """Small arrays of every dtype that travels."""
    dtype = np.dtype(draw(st.sampled_from([*hostile.KINDS.values()])))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    count = int(np.prod(shape)) * dtype.itemsize
    top = 1 if dtype.kind == "b" else 255
    data = draw(st.lists(st.integers(0, top), min_size=count, max_size=count))
    return np.frombuffer(bytes(data), dtype).reshape(shape)


def _npy_files() -> list[bytes]:
    plain = [np.zeros((2, 3)), np.arange(4, dtype=np.int32), np.array(1.5, np.float32), np.zeros((0, 2))]
    files = [hostile.npy_bytes(a) for a in plain]
    for a in (np.array([{}], object), np.array(["a"]), np.zeros(2, complex)):
        file = io.BytesIO()
        np.save(file, a, allow_pickle=True)
        files.append(file.getvalue())
    return files


def _texts() -> list[bytes]:
    return [textmode.text_of(generate(n, 0, 0)).encode()[:1500] for n in ("sp", "top_k", "low_rank_mfac")] + [
        b"declare SOLVER lu declare ARITHMETIC.depth 4 case sp 0 1 omega float64 1 2 0x1p+0 nan end"
    ]


def _frames() -> list[bytes]:
    case = generate("sp", 0, 0)
    answer = {"results": {"u": np.zeros(3)}, "mutated": ["g"]}
    bodies: list[Any] = [{"number": 1, "arguments": dict(case.arguments)}, answer, [1, (2,)]]
    return [bytes(wire.encode(body)) for body in bodies]


# --- the parsers: each returns what an input is, and reads it -----------------------------------------------------


def read_json(data: bytes) -> None:
    """JSON of a message, a case, a manifest or a declaration."""
    hostile.json_value(data)


def read_npy(data: bytes) -> None:
    """A ``.npy`` file."""
    hostile.npy(data)


def read_typed(value: dict[str, Any]) -> None:
    """A typed array of a message, as base64 or as a path in an empty folder."""
    hostile.typed(value, Path(EMPTY.name))


def read_results(value: tuple[str, Any]) -> None:
    """The results of a message."""
    with contextlib.suppress(results.ResultShape):
        process.unpacked(*value, "float64", Path(EMPTY.name))


def read_text(data: bytes) -> None:
    """What a program wrote in text mode; its trouble is told, not raised."""
    textmode.read_answers(data)


def read_frame(data: bytes) -> None:
    """A frame of the pipe to a Python target's process."""
    with contextlib.suppress(wire.BrokenMessage):
        if len(data) >= wire.PREFIX.size:
            wire.decode(*wire.split(bytearray(data)))


def read_trace(data: bytes) -> None:
    """A trace."""
    with contextlib.suppress(ValueError):
        tracing.Trace.from_json(data.decode("utf-8", "replace"))


def read_path(path: str) -> None:
    """A path inside a folder."""
    hostile.read_inside(Path(EMPTY.name), path)


def read_arguments(value: tuple[str, dict[str, Any]]) -> None:
    """The arguments of a case: whatever is legal is a case of the contract."""
    with contextlib.suppress(ValueError, TypeError):
        vectors.legal(*value)


def read_bundle(change: tuple[str, bytes]) -> None:
    """A whole bundle, one file of which is replaced."""
    name, data = change
    path = Path(BUNDLE.name) / name
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        list(vectors.read(Path(BUNDLE.name)))
    finally:
        path.write_bytes(before)


def read_report(pair: Any) -> None:
    """Two reports, whatever they hold, and what changed between them."""
    folder = Path(REPORTS.name)
    for name, data in zip("ab", pair if isinstance(pair, tuple) else (pair, _report_text()), strict=True):
        (folder / f"{name}.jsonl").write_bytes(data)
    with contextlib.suppress(UsageError):
        found = diff.difference(diff.read(folder / "a.jsonl"), diff.read(folder / "b.jsonl"))
        told = "\n".join(found.lines()) + json.dumps(found.as_json())
        assert all(c.isprintable() or c == "\n" for c in told), "control characters reach the terminal"


def read_chunk(data: bytes) -> None:
    """A line of ``chunks.log``; damaged ones with a checksum that is right, too. What is read is counted."""
    for line in (data, b"%08x %b\n" % (zlib.crc32(data[9:-1]), data[9:-1])):
        done = chunks.from_line(line)
        for row in done.rows if done else ():
            verdict, outcome = restored(row)
            Stats().add(row)
            campaign.judging._Tally(row.operation).add(verdict, outcome, keep=row.kept)
            chunks.to_line(chunks.Finished(chunks.Chunk("sp", 0, 0, 10), (row,)))


def read_campaign(data: tuple[bytes, bytes]) -> None:
    """A folder of a campaign: its head and its log; it is resumed, or refused in words."""
    with tempfile.TemporaryDirectory(dir=REPORTS.name) as name:
        folder = Path(name)
        (folder / "campaign.json").write_bytes(data[0])
        (folder / "chunks.log").write_bytes(data[1])
        with contextlib.suppress(UsageError):
            log = campaign.Log(folder, PLAN)
            ledger = campaign.Ledger(PLAN, log, None)
            ledger.count("sp")
            log.close()


def write_junit(texts: list[str]) -> None:
    """Whatever a target says of itself, the files for machines are well formed."""
    first = Check(texts[0], "T2", "2:11", texts[1], 2.0, "fail", texts[2])
    row = Row("sp", 0, 0, "float64", "fail", {"T2": Tier("fail", 2.0)}, first=first)
    stats = Stats()
    stats.add(row)
    failure = Failure(restored(row)[0], None, texts[3], texts[4])
    operation = OperationReport("sp", "fail", failed=1, errors={texts[3]: 1}, failures=(failure,), note=texts[4])
    report = Report(texts[5], (operation,), broken=texts[0], notes=(texts[1],))
    ElementTree.fromstring(machines.junit(report, stats))
    for line in machines.jsonl(report, stats).splitlines():
        json.loads(line)


def read_address(address: str) -> None:
    """What is given to ``--dask``: what Dask gets to see is a host and a port, and prints as it is."""
    with contextlib.suppress(UsageError):
        host, _, port = pool.address_of(address).rpartition(":")
        assert host.isprintable()
        assert 0 < int(port) < 1 << 16


class Planned(campaign.Plan):
    """A plan that reads the code of its target once."""

    def head(self) -> dict[str, Any]:
        """Return what a folder must agree with."""
        return dict(HEAD)


PLAN = Planned(chunks.Door("efcp_ref.contract"), ("sp",), 30, 0)
HEAD = campaign.Plan.head(PLAN)
REPORTS: Any = tempfile.TemporaryDirectory(prefix="efcp-fuzz-")
EMPTY: Any = tempfile.TemporaryDirectory(prefix="efcp-fuzz-")
BUNDLE: Any = tempfile.TemporaryDirectory(prefix="efcp-fuzz-")


def _bundle() -> dict[str, bytes]:
    """A small bundle: one case of sp, one of low_rank_mfac; without hashes in the manifest's way."""
    root = Path(BUNDLE.name)
    if not any(root.iterdir()):
        vectors.write(root, ["sp"])
        for folder in sorted((root / "sp").iterdir())[2:]:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        manifest = json.loads((root / "manifest.json").read_text())
        manifest["cases"] = manifest["cases"][:2]
        (root / "manifest.json").write_text(json.dumps(manifest))
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@st.composite
def _arguments(draw: Callable[..., Any]) -> tuple[str, dict[str, Any]]:
    operation = draw(st.sampled_from(NAMES))
    arguments = dict(generate(operation, 0, 0).arguments)
    for name in draw(st.lists(st.sampled_from(sorted(arguments)), max_size=3)):
        wrong = st.sampled_from([np.zeros(3), np.zeros((2, 2)), np.zeros(0), np.zeros((0, 0), np.int32), np.array("x")])
        arguments[name] = draw(st.one_of(scalars, wrong, st.lists(scalars, max_size=3)))
    return operation, arguments


@st.composite
def _headers(draw: Callable[..., Any]) -> bytes:
    """A frame whose header is JSON of the right kind with wrong contents."""
    shapes = st.lists(st.one_of(st.integers(-2, 4), st.integers(0, 2**70)), max_size=3)
    names = st.sampled_from(["<f8", "|O", "", "bfloat16", "|S9", "x"])
    kinds = st.lists(st.one_of(st.tuples(names, shapes), scalars), max_size=3)
    packed = st.one_of(anything, st.fixed_dictionaries({"array": st.integers(-3, 3)}))
    header, data = json.dumps([draw(packed), draw(kinds)]).encode(), draw(st.binary(max_size=64))
    return wire.PREFIX.pack(wire.MAGIC, len(header), len(data)) + header + data


def _traces() -> st.SearchStrategy[bytes]:
    """A trace with wrong contents."""
    body = st.fixed_dictionaries({"format": st.just(tracing.FORMAT)},
                                 optional=dict.fromkeys(("function", "events", "result"), anything))  # fmt: skip
    return body.map(lambda v: json.dumps(v).encode())


def _report_text() -> bytes:
    """A small report: a pass, a failure, an operation that is not offered."""
    stats = Stats()
    first = Check("omega", "T2", "2:11", "|.| <= u", 3.0, "fail", "wrong", (1,), 1.0, 2.0, 0.5)
    for index, verdict in enumerate(("pass", "fail", "error", "inconclusive")):
        shown = first if verdict == "fail" else None
        stats.add(Row("sp", 0, index, "float64", verdict, {"T2": Tier("fail" if shown else "pass", 0.5)}, first=shown))
    known = OperationReport("sp", "fail", 1, 1, {"density": 1}, {"raised": 1}, worst=first, seconds=2.0)
    return machines.jsonl(Report("mine.py", (known, OperationReport("lcg", "skip"))), stats).encode()


def _chunk_line() -> bytes:
    """A line of ``chunks.log`` with a pass and a failure."""
    first = Check("omega", "T2", "2:11", "|.| <= u", 3.0, "fail", "wrong", (1,), 1.0, 2.0, 0.5)
    rows = (Row("sp", 0, 0, "float64", "pass", {"T1": Tier("pass", 0.0)}),
            Row("sp", 0, 1, "float32", "fail", {"T2": Tier("fail", 3.0)}, first=first, worst=first))  # fmt: skip
    return chunks.to_line(chunks.Finished(chunks.Chunk("sp", 0, 0, 10), rows, 0.5))


@st.composite
def _swapped(draw: Callable[..., Any], whole: bytes, head: int = 0) -> bytes:
    """Lines of JSON, one value somewhere inside replaced by anything; ``head`` bytes stand before the JSON."""
    lines = whole.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    body = json.loads(lines[at][head:])
    inside: Any = body
    for _ in range(draw(st.integers(0, 3))):
        keys = sorted(inside) if isinstance(inside, dict) else range(len(inside))
        deeper = [key for key in keys if isinstance(inside[key], (dict, list)) and inside[key]]
        if not deeper:
            break
        inside = inside[draw(st.sampled_from(deeper))]
    if isinstance(inside, dict) and inside:
        inside[draw(st.sampled_from(sorted(inside)))] = draw(anything)
    elif isinstance(inside, list) and inside:
        inside[draw(st.integers(0, len(inside) - 1))] = draw(anything)
    lines[at] = lines[at][:head] + json.dumps(body).encode()
    return b"\n".join(lines) + b"\n"


def _campaigns() -> st.SearchStrategy[tuple[bytes, bytes]]:
    """A head and a log that fit, one of them damaged or with a wrong value inside."""
    head = json.dumps(PLAN.head() | {"cases": 30, "finished": False}).encode()
    log = _chunk_line() + b"00000000 {torn"
    dice = st.integers(0, 2**32).map(Random)
    heads = st.one_of(_swapped(head), dice.map(lambda d: damage(head, d)), st.binary(max_size=16))
    logs = st.one_of(dice.map(lambda d: damage(log, d)), _swapped(_chunk_line(), 9), st.binary(max_size=16))
    return st.one_of(st.tuples(heads, st.just(log)), st.tuples(st.just(head), logs))


def _addresses() -> st.SearchStrategy[str]:
    """Addresses: of nobody, of no kind, of nothing."""
    parts = ["tcp://", "inproc://", "127.0.0.1", ":", "9", "-1", "99999", "[::1]", "/", "\0"]
    return st.one_of(st.lists(st.sampled_from(parts), max_size=6).map("".join), st.text(max_size=8))


def parsers() -> dict[str, tuple[Callable[[Any], None], st.SearchStrategy[Any], int]]:
    """Name of every parser: what reads, what is read, and its share of the inputs."""
    dumped = anything.map(lambda v: json.dumps(v).encode())
    trace = tracing.trace(lambda: None).to_json().encode()
    seeds = st.integers(0, 2**32)
    bundle, good = _bundle(), arrays().map(hostile.untyped)
    messages = [json.dumps(process.run_message(generate("sp", 0, 0), 1)).encode()[:600], b'{"a": [1, 2.5, null, "x"]}']
    one_file = st.builds(lambda n, seed: (n, damage(bundle[n], Random(seed))), st.sampled_from(sorted(bundle)), seeds)
    parts = ["..", "a", "/", "\0", "~", "sp", "out", ".", "\\", "%2e", " ", "é", "x" * 120]
    words = st.lists(st.sampled_from(parts), max_size=10)
    value = st.one_of(array_json, good, anything)
    outputs = st.dictionaries(st.sampled_from(["omega", "u", "states", "S"]), value, max_size=3)
    changed = st.builds(lambda a, b: {**a, **b}, good, array_json)
    return {
        "JSON": (read_json, st.one_of(damaged(st.sampled_from(messages)), dumped, st.binary(max_size=64)), 12),
        "npy": (read_npy, st.one_of(damaged(st.sampled_from(_npy_files())), arrays().map(hostile.npy_bytes)), 20),
        "typed arrays": (read_typed, st.one_of(array_json, good, changed), 2),
        "results": (read_results, st.tuples(st.sampled_from(["sp", "mfac_direction", "topk_sgd"]), outputs), 1),
        "text": (read_text, damaged(st.sampled_from(_texts())), 50),
        "frames": (read_frame, st.one_of(damaged(st.sampled_from(_frames())), _headers()), 10),
        "traces": (read_trace, st.one_of(damaged(st.just(trace)), dumped, _traces()), 4),
        "paths": (read_path, words.map("".join), 1),
        "arguments": (read_arguments, _arguments(), 1),
        "bundles": (read_bundle, one_file, 1),
        "reports": (read_report, st.one_of(damaged(st.just(_report_text())), _swapped(_report_text()),
                                           st.tuples(_swapped(_report_text()), _swapped(_report_text()))), 6),
        "chunks": (read_chunk, st.one_of(damaged(st.just(_chunk_line())), _swapped(_chunk_line(), 9)), 8),
        "campaigns": (read_campaign, _campaigns(), 1),
        "JUnit": (write_junit, st.lists(st.text(st.characters(), max_size=12), min_size=6, max_size=6), 1),
        "Dask addresses": (read_address, _addresses(), 1),
    }


# --- running ------------------------------------------------------------------------------------------------------

# inputs per draw, at least, on the average
PER_DRAW = {"JSON": 4, "npy": 5, "text": 10, "frames": 5, "traces": 4, "reports": 3, "chunks": 5}
OPENED: list[str] = []
WATCHED = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Notice files opened by name while a parser runs; below a folder only names are opened, relative to it."""
    if WATCHED and event == "open" and isinstance(arguments[0], (str, bytes)):
        name = os.fsdecode(arguments[0])
        ours = name.startswith((EMPTY.name, BUNDLE.name, REPORTS.name)) or name.endswith((".py", ".pyc"))
        if os.path.isabs(name) and not ours:
            OPENED.append(name)


def _one(read: Callable[[Any], None], value: Any, seen: Counter[str], measured: bool) -> int:
    """Read one input under the watch; return its largest traced memory, 0 where it is not measured."""
    global WATCHED
    if measured:
        tracemalloc.start()
    WATCHED = True
    try:
        read(value)
    except Hostile:
        seen["refused"] += 1
    finally:
        WATCHED = False
        peak = tracemalloc.get_traced_memory()[1] if measured else 0
        tracemalloc.stop()
    return peak


def run(name: str, inputs: int, seen: Counter[str]) -> float:
    """Feed one parser; return the largest traced memory of one input, in bytes.

    Raises:
        Whatever leaves the parser and is not documented; Hypothesis shows the smallest such input.
    """
    read, strategy, _ = parsers()[name]
    peak, draws = 0, max(10, inputs // PER_DRAW.get(name, 1))

    @settings(
        max_examples=draws, deadline=None, database=None, phases=(Phase.generate, Phase.shrink), derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def try_one(value: Any) -> None:
        nonlocal peak
        for one in value if isinstance(value, Batch) else [value]:
            seen[name] += 1
            peak = max(peak, _one(read, one, seen, measured=seen[name] % 20 == 0))
        assert not OPENED, f"opened {OPENED}"
        assert peak < MEMORY, f"{peak} bytes for one input"

    try_one()
    return peak


def shares(inputs: int) -> Iterator[tuple[str, int]]:
    """How many inputs every parser gets."""
    table = parsers()
    for name, (_, _, share) in table.items():
        yield name, max(1, inputs * share // 100)


def record(key: str, value: Any, file: Path = RESULTS) -> None:
    """Write one figure into the results, beside the others."""
    done = json.loads(file.read_text()) if file.exists() else {}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({**done, key: value}, indent=1) + "\n")


def main() -> None:
    """Fuzz every parser, print and record how many inputs it was given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=150_000)
    parser.add_argument("--only", nargs="*", choices=list(parsers()), help="the figures of the others stay")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    sys.addaudithook(_hook)
    began, seen, peaks = time.monotonic(), Counter[str](), {}
    for name, inputs in shares(options.inputs):
        if options.only and name not in options.only:
            continue
        peaks[name] = run(name, inputs, seen)
        print(f"{name}: {seen[name]} inputs, at most {peaks[name]} bytes", flush=True)
    refused = seen.pop("refused", 0)
    told = f"python benchmarks/fuzz.py --inputs {options.inputs}"
    before: dict[str, Any] = {}
    if options.only:
        told += " --only " + " ".join(shlex.quote(name) for name in options.only)
        before = json.loads(RESULTS.read_text())["fuzz"]
    record("fuzz", merged(before, {
        "commands": [told], "inputs per parser": dict(seen), "refused as hostile": refused, "crashes": 0,
        "files opened outside": 0, "largest memory of one input in bytes": max(peaks.values()),
        "seconds": round(time.monotonic() - began, 1),
    }))  # fmt: skip


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of two runs of different parsers together."""
    per = {**before.get("inputs per parser", {}), **now["inputs per parser"]}
    memory = "largest memory of one input in bytes"
    counts = ("refused as hostile", "crashes", "files opened outside", "seconds")
    added = {n: round(before.get(n, 0) + now[n], 1) for n in counts}
    return {"commands": [*before.get("commands", []), *now["commands"]], "inputs": sum(per.values()),
            "inputs per parser": per, **added, memory: max(before.get(memory, 0), now[memory])}  # fmt: skip


if __name__ == "__main__":
    main()
