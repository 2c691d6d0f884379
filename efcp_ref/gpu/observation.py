"""What the kernels do to memory, counted: which addresses each lane touches at each step, and what that costs.

The kernel runs on the CPU, built so that every access of global or shared memory and every barrier is written down. The
result is the same, bit for bit. What is counted belongs to the source and the data, not to a device: sectors of 32
bytes that a warp asks for, passes over the 32 banks of shared memory, lanes that have nothing to do. Registers, caches
and the compiler's own loads are not seen: an access that a compiler would keep in a register counts each time.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np

from efcp_ref.gpu import operations
from efcp_ref.gpu.catalogue import FOLDER, KERNELS, entry
from efcp_ref.gpu.cpu import build, events
from efcp_ref.gpu.cpu.device import CPU, load, packed, run_packed
from efcp_ref.gpu.cpu.events import ATOMIC, KINDS, SPACES, WARP
from efcp_ref.gpu.formats import Format
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array

FORMAT = "efcp-ref observation 1"
ALIGNED = 256  # bytes: where a GPU's allocator lets arrays begin
TAG = re.compile(r"//\s+((?:S?\d|W|K):\d+)\s*$")
ACCESS = np.dtype(
    [("step", "u4"), ("block", "u4"), ("warp", "u2"), ("lane", "u1"), ("kind", "u1"), ("space", "u1"), ("array", "u1"),
     ("line", "u2"), ("index", "i8"), ("address", "u8")]
)  # fmt: skip
STEP = np.dtype(
    [("step", "u4"), ("block", "u4"), ("warp", "u2"), ("row", "u2"), ("lanes", "u1"), ("passes", "u1"),
     ("sectors", "u2"), ("bytes", "u2")]
)  # fmt: skip
_CALLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sp": (operations.sp, {"kernel": "textbook"}),
    "sp_warps": (operations.sp, {"kernel": "warps"}),
    "sp_slices": (operations.sp, {"kernel": "slices"}),
    "sp_sum": (operations.sp, {"kernel": "slices"}),
    "lcg": (operations.lcg, {"kernel": "textbook"}),
    "lcg_global": (operations.lcg, {"kernel": "global"}),
    "lcg_rows": (operations.lcg, {"kernel": "rows", "threads": 1024}),
    "lcg_rows_128": (operations.lcg, {"kernel": "rows", "threads": 128}),
    "lcg_warp": (operations.lcg, {"kernel": "warp"}),
}


@dataclass(frozen=True)
class Line:
    """What one line of a kernel does to one array, or one barrier of it, over the whole launch."""

    place: str  # "sp.cu:31"
    paper: str  # paper line, "2:11"; of a helper: that of the line that calls it; "" for none
    code: str  # its text, without the comment
    kind: str  # one of `events.KINDS`
    space: str  # "global" | "shared", "" for a barrier
    array: str  # its name, "" for a barrier
    steps: int  # accesses by warps; of a barrier: how often a block or a warp meets there
    lanes: int  # accesses by lanes
    idle_lanes: int  # lanes of those warps that have no part in the step
    idle_threads: int  # threads of the whole block that have none
    sectors: int  # of 32 bytes, global memory
    bytes: int  # that were asked for, global memory, each once in a step
    passes: int  # over shared memory
    conflicts: int  # passes beyond one for each step


COUNTS = tuple(f.name for f in fields(Line)[6:])


@dataclass(frozen=True, eq=False)
class Observation:
    """One launch of a kernel, access by access."""

    kernel: str
    form: Format
    blocks: int
    threads: int
    shared_bytes: int
    arrays: tuple[str, ...]  # names: arguments, then shared arrays
    accesses: Array  # ACCESS: one record for each lane and access; step: its number in `steps`; address: see `observe`
    steps: Array  # STEP: one record for each access or barrier of a warp; step: within the warp; row: of `lines`
    lines: tuple[Line, ...]  # in the order of the source
    totals: dict[str, int]  # of every count over the accesses, and how often each kind of barrier was met
    result: Any = None

    def table(self) -> tuple[str, ...]:
        """Return the lines and the totals as rows of text, under a row of names."""
        names = ("line", "paper", "kind", "array", *COUNTS)
        rows = [(l.place, l.paper, l.kind, l.array, *(str(getattr(l, c)) for c in COUNTS)) for l in self.lines]
        rows = [names, *rows, ("total", "", "", "", *(str(self.totals[c]) for c in COUNTS))]
        wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return tuple(
            "  ".join(w.ljust(n) if i < 4 else w.rjust(n) for i, (w, n) in enumerate(zip(row, wide, strict=True)))
            for row in rows
        )

    def to_json(self) -> str:
        """Return everything but the result as JSON: records as columns, kinds and spaces as numbers of their lists."""
        said = {
            "format": FORMAT, "kernel": self.kernel, "index": self.form.index, "value": self.form.value,
            "blocks": self.blocks, "threads": self.threads, "shared_bytes": self.shared_bytes,
            "kinds": KINDS, "spaces": SPACES, "arrays": self.arrays, "lines": [asdict(line) for line in self.lines],
            "totals": self.totals, "steps": _columns(self.steps), "accesses": _columns(self.accesses),
        }  # fmt: skip
        return json.dumps(said) + "\n"


def _columns(records: Array) -> dict[str, list[int]]:
    return {name: records[name].tolist() for name in records.dtype.names or ()}


class Observer(CPU):
    """The CPU, every launch of it observed: hand it to any operation as its device.

    >>> device = Observer()
    >>> G = np.int32([[0, 3], [1, 2]]), np.float32([[2.0, 1.0], [0.5, -1.0]])
    >>> u = operations.sparse_mfac_direction(*G, 4, 1.0, np.ones(4, np.float32), device=device).u
    >>> [o.kernel for o in device.observations][-2:]
    ['lcg', 'direction']
    """

    def __init__(self, order: str | None = None, seed: int | None = None) -> None:
        super().__init__(order, seed, "")
        self.observations: list[Observation] = []

    def launch(
        self, kernel: str, form: Format, blocks: int, threads: int, shared: int, *arguments: Any, stream: Any = None
    ) -> None:
        """Run a kernel to its end and append what it did to ``observations``."""
        library, held = load(self.library(kernel, form, observe=True)), packed(kernel, arguments)
        shape = self._shape(kernel, blocks, threads, shared)
        library.cuda_on_cpu_forget()
        run_packed(getattr(library, f"launch_{entry(kernel)}"), shape, held, kernel)
        seen, files = events.read(library, kernel)
        launched = (kernel, form, blocks, threads, shared)
        self.observations.append(_observation(launched, arguments, seen, files, self._source(kernel)))

    def _source(self, kernel: str) -> str:
        about = KERNELS[kernel]
        return self._texts.get(about.file) or about.path.read_text()


def observe(kernel: str, *arguments: Any, order: str = "forward", seed: int = 0, **more: Any) -> Observation:
    """Run a kernel of the ladder on the CPU and report every address that it touches.

    Source: Algorithms 2 and 3 (appendix G); what a sector, a bank and a warp are: the CUDA C++ Programming Guide.
    A step is what the 32 lanes of a warp do together; they share a step when they are at the same place on the same
    turns of the loops around it. ``sectors`` counts 32-byte pieces that a step needs of global memory (4 is the least
    for 32 floats), ``passes`` the most different words that it needs from one of 32 banks. Arrays begin at multiples of
    256 bytes, as a GPU's allocator gives them; ``address`` in shared memory counts from the array's start.

    Args:
        kernel: "sp", "sp_warps", "sp_slices", "sp_sum", "lcg", "lcg_rows", "lcg_rows_128", "lcg_warp" or "lcg_global".
        arguments, more: those of `sp` or `lcg`; not ``kernel`` and ``device``.
        order, seed: in which order the threads run; the report is the same for each.

    Returns:
        The observation; ``result`` is omega. For other kernels see `Observer`.

    Raises:
        TypeError, ValueError: bad arguments, or more than four million accesses.

    Cost: 56 bytes and some microseconds for each access.

    >>> G = np.int32([[0, 3], [1, 2]]), np.float32([[2.0, 1.0], [0.5, -1.0]])
    >>> o = observe("sp", *G, np.float32([1.0, 2.0, 3.0, 4.0]))
    >>> [(line.place, line.array, line.sectors) for line in o.lines if line.paper == "2:11"]
    [('sp.cu:33', 'g', 2)]
    """
    check.choice("kernel", kernel, tuple(_CALLS))
    call, fixed = _CALLS[kernel]
    for name in ("device", *fixed):
        if name in more:
            raise TypeError(f"{name} = {more[name]!r}, must not be given: kernel = {kernel!r} sets it")
    device = Observer(order, seed)
    result = call(*arguments, **fixed, **more, device=device)
    seen = next(o for o in device.observations if o.kernel == kernel)
    return replace(seen, result=result)


# ---- from events to an observation -----------------------------------------------------------------------------------


def _observation(
    launched: tuple[str, Format, int, int, int], arguments: tuple[Any, ...], seen: Array, files: dict[int, str],
    source: str,
) -> Observation:  # fmt: skip
    kernel, threads = launched[0], launched[3]
    own = KERNELS[kernel].file
    array, index, address, names = _located(kernel, arguments, seen, source)
    step, of_block = events.steps(seen)
    row, order = _rows(seen, files, array, own)
    steps = _steps(seen, step, row, address)
    texts = {name: source if name == own else (FOLDER / name).read_text() for name in files.values()}
    idle = _idle(row, of_block, threads, len(order))
    lines = tuple(
        _line(seen[event], files, texts, names[array[event]], steps[steps["row"] == r], idle[r], of_block[row == r])
        for r, event in enumerate(order)
    )
    totals = {name: sum(getattr(line, name) for line in lines if line.array) for name in COUNTS}
    totals |= {kind: sum(line.steps for line in lines if line.kind == kind) for kind in KINDS[ATOMIC + 1 :]}
    accesses = _accesses(seen, step, array, index, address)
    for records in (steps, accesses):
        records.flags.writeable = False
    return Observation(*launched, names, accesses, steps, lines, totals)


def _located(kernel: str, arguments: tuple[Any, ...], seen: Array, source: str) -> tuple[Any, ...]:
    """Return for every event the number of its array, the index there, its address; and the arrays' names."""
    words = [word.split(":")[0] for word in KERNELS[kernel].arguments.split()]
    held = [(name, a) for name, a in zip(words, arguments, strict=True) if isinstance(a, np.ndarray)]
    dynamic = re.search(build.DYNAMIC, source)
    fixed = [found[2] for found in re.finditer(build.FIXED, source)]
    names = (*(name for name, _ in held), dynamic[2] if dynamic else "", *fixed)
    where = seen["address"].astype(np.int64)
    array, address = len(held) + seen["array"].astype(np.int64), where.copy()
    index = where // np.maximum(seen["bytes"], 1)
    found, base = (seen["space"] != 0) | (seen["kind"] > ATOMIC), 0
    for number, (_, a) in enumerate(held):
        inside = ~found & (where >= a.ctypes.data) & (where < a.ctypes.data + a.nbytes)
        array[inside], address[inside] = number, where[inside] - a.ctypes.data + base
        index[inside] = (where[inside] - a.ctypes.data) // a.itemsize
        found, base = found | inside, base + -(-a.nbytes // ALIGNED) * ALIGNED
    if not found.all():
        line = seen["line"][np.argmin(found)]
        raise RuntimeError(f"kernel {kernel} touches memory outside its arguments: {KERNELS[kernel].file}:{line}")
    return array, index, address, names


def _rows(seen: Array, files: dict[int, str], array: Array, own: str) -> tuple[Array, Array]:
    """Return for every event its row in the summary, and for every row its first event."""
    key = events.groups(seen["file"], seen["line"], np.where(seen["kind"] > ATOMIC, 0, array), seen["kind"])
    first = np.unique(key, return_index=True)[1]
    other = np.array([files[int(at)] != own for at in seen["file"][first]], bool)
    order = np.lexsort((first, seen["line"][first], other))
    row = np.empty(len(first), np.int64)
    row[order] = np.arange(len(first))
    return row[key], first[order]


def _steps(seen: Array, step: Array, row: Array, address: Array) -> Array:
    """Return the records of the steps, in order."""
    first = np.unique(step, return_index=True)[1]
    out = np.zeros(len(first), STEP)
    out["block"], out["warp"], out["row"] = seen["block"][first], seen["thread"][first] // WARP, row[first]
    out["step"] = events.rank(events.groups(out["block"], out["warp"]))
    out["lanes"] = np.bincount(step)
    out["sectors"], out["bytes"] = events.sectors(seen, address, step, len(out))
    out["passes"] = events.passes(seen, step, len(out))
    return out


def _idle(row: Array, of_block: Array, threads: int, rows: int) -> Array:
    """Return for every row of the summary how many threads of a block have no part, over all steps of blocks."""
    first = np.unique(of_block, return_index=True)[1]
    return np.bincount(row[first], threads - np.bincount(of_block), rows).astype(np.int64)


def _line(
    event: Any, files: dict[int, str], texts: dict[str, str], array: str, steps: Array, idle: int, of_block: Array
) -> Line:
    file, number, kind = files[int(event["file"])], int(event["line"]), KINDS[event["kind"]]
    text, paper = texts[file].splitlines()[number - 1], papers(texts[file]).get(number, "")
    where = (f"{file}:{number}", paper, text.split("//")[0].strip(), kind)
    if event["kind"] > ATOMIC:
        met = len(np.unique(of_block)) if kind == "block barrier" else len(steps)
        return Line(*where, "", "", met, *[0] * (len(COUNTS) - 1))
    lanes, passes = int(steps["lanes"].sum()), int(steps["passes"].sum())
    touched = (int(steps["sectors"].sum()), int(steps["bytes"].sum()))
    busy = (len(steps), lanes, WARP * len(steps) - lanes, int(idle))
    return Line(*where, SPACES[event["space"]], array, *busy, *touched, passes, max(0, passes - len(steps)))


@cache
def papers(source: str) -> dict[int, str]:
    """Return the paper line of each line of a kernel file: its tag, and in a helper that of the line that calls it.

    >>> papers("__device__ void f()\\n{\\n    x();\\n}\\nf();   // 2:14")
    {1: '2:14', 2: '2:14', 3: '2:14', 4: '2:14', 5: '2:14'}
    """
    lines = source.splitlines()
    out = {n: found[1] for n, line in enumerate(lines, 1) if (found := TAG.search(line))}
    for n, line in enumerate(lines, 1):
        if helper := re.match(r"__device__ .*?(\w+)\(", line):
            called = [out[c] for c, text in enumerate(lines, 1) if c in out and re.search(rf"\b{helper[1]}\(", text)]
            end = next((e for e in range(n, len(lines) + 1) if lines[e - 1].startswith("}")), n)
            out |= dict.fromkeys(range(n, end + 1), called[0]) if len(called) == 1 else {}
    return dict(sorted(out.items()))


def _accesses(seen: Array, step: Array, array: Array, index: Array, address: Array) -> Array:
    """Return the records of the accesses, step after step, lane after lane."""
    made = seen["kind"] <= ATOMIC
    out = np.zeros(int(made.sum()), ACCESS)
    for name in ("block", "kind", "space", "line"):
        out[name] = seen[name][made]
    out["warp"], out["lane"] = seen["thread"][made] // WARP, seen["thread"][made] % WARP
    out["step"], out["array"] = step[made], array[made]
    out["index"], out["address"] = index[made], address[made]
    return out[np.lexsort((out["lane"], out["step"]))]
