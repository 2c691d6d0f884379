"""Kernels broken one way at a time, and the checks that must notice.

``python -m tests.gpu.mutants`` runs every check on every mutant that ``mutants.json`` does not hold as it is now, and
writes there which checks saw it; ``docs/kernels.md`` shows the table.

The checks, from cheap to dear:
  order    the result, bit for bit, with threads forward, reversed and shuffled, shared memory full of NaN; or the
           shim's own report: threads wait at different barriers, or one has written outside an array
  thread   the thread sanitizer, by the kernel's line
  address  the address and undefined-behaviour sanitizers, by the kernel's line
  work     with every access recorded: each thread block has its share of the slices
"""

import ctypes
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from efcp_ref.gpu import catalogue, window
from efcp_ref.gpu.cpu.device import CPU, PROPERTIES, Launch, load, packed
from efcp_ref.gpu.cpu.events import KINDS, SPACES, read
from efcp_ref.gpu.formats import Format
from efcp_ref.gpu.optimizer import sparse_mfac
from efcp_ref.paper.optimizers import sparse_mfac as reference
from tests.gpu import problems

ROOT = Path(__file__).parents[2]
RUNS = (("forward", 0), ("reverse", 0), ("shuffled", 1), ("shuffled", 2))
CHECKS = ("order", "thread", "address", "work")
RECORDED = Path(__file__).parent / "mutants.json"
SYNC, WARP = "__syncthreads();", "__syncwarp();"


@dataclass(frozen=True)
class Mutant:
    """One broken kernel."""

    file: str
    what: str
    edits: tuple[tuple[str, str], ...]
    caught: str  # the check that must notice; the others that do are in mutants.json
    index: str = "absolute"
    launch: tuple[int, int, int] | None = None  # blocks, threads, bytes of shared memory: a launch as printed
    shape: tuple[int, int, int, float] = problems.CASES["partial last block"]


def _m(file, what, old, new, caught, **more):
    return Mutant(file, what, ((old, new),) if old else (), caught, **more)


AFTER_ROWS = ("        for (int i = ThreadId; i < end_d", "        __syncthreads(); for (int i = ThreadId; i < end_d")
BARRIER_22 = "__syncthreads();                                               // the next row"
IN_BRANCH = "        if (Tid < half) {\n            mem[Tid] += mem[Tid + half]; __syncthreads(); }"

MUTANTS = {
    "sp-14-no-barrier": _m("sp.cu", "parallel_reduce without its barrier (R16)", SYNC, "", "thread"),
    "sp-14-one-barrier": Mutant(
        "sp.cu", "one barrier before all levels (R16)",
        ((SYNC, ""), ("    for (int half", "    __syncthreads(); for (int half")), "thread"),
    "sp-14-in-branch": Mutant(
        "sp.cu", "the barrier inside the branch",
        ((SYNC, ""), ("        if (Tid < half)\n            mem[Tid] += mem[Tid + half];", IN_BRANCH)), "order"),
    "sp-08-row-bound": _m("sp.cu", "reads one entry past the row", "j < k", "j <= k", "order"),
    "sp-R13-printed": _m("sp.cu", "a position read as a column (R13)", "column(I[row + j], j, B_d, B_k)", "I[row + j]",
                         "order", index="uint16"),
    "sp-R15-printed": _m("sp.cu", "1,024 blocks for six rows (R15)", "", "", "address", launch=(1024, 128, 512)),
    "sp-R16-printed": _m("sp.cu", "96 threads, no power of two (R16)", "", "", "order", launch=(6, 96, 384)),
    "lcg-08-no-barrier": _m("lcg.cu", "no barrier after zeroing (line 8)",
                            "    __syncthreads();                                                       //", "    //",
                            "thread"),
    "lcg-22-no-barrier": _m("lcg.cu", "no barrier after a row (line 22)", BARRIER_22, "//", "thread"),
    "lcg-22-after-all": Mutant("lcg.cu", "the barrier of line 22 after all rows",
                               ((BARRIER_22, "//"), AFTER_ROWS), "thread"),
    "lcg-29-no-barrier": _m("lcg.cu", "no barrier after a slice (line 29)",
                            "        __syncthreads();                                                   //",
                            "        //", "thread"),
    "lcg-R13-printed": _m("lcg.cu", "a position taken for a column (R13)", "position(I[start + col], start_d)",
                          "(int) I[start + col] - start_d", "address", index="uint16"),
    "lcg-R17-printed": _m("lcg.cu", "mem has T components (R17)", "", "", "address", launch=(3, 128, 512)),
    "lcg-R18-printed": _m("lcg.cu", "workload in coordinates (R18)", "(n_Bd - 1) / B + 1", "(n_Bd * B_d - 1) / B + 1",
                          "work"),
    "lcg-R19-printed": _m("lcg.cu", "end_k = min(B_k, ...) (R19)", "start_k + min(B_k, k - start_k)",
                          "min(B_k, start_k + B_k)", "order"),
    "lcg-R20-printed": _m("lcg.cu", "rows to workload (R20)", "row < m", "row < workload", "order"),
    "lcg-16-bit-signed": _m("lcg.cu", "a signed 16-bit index (R13)", "position(I[start + col], start_d)",
                            "(short) I[start + col]", "address", index="uint16",
                            shape=(45_000, 2, 40_000, 0.01)),
    "lcg-25-whole-slice": _m("lcg.cu", "writes a whole last slice (line 25)", "i < end_d - start_d", "i < B_d",
                             "address"),
    "lcg-27-not-cleared": _m("lcg.cu", "mem is not cleared (line 27)", "mem[i] = 0;                                    "
                             "                //", "//", "order"),
    "sp-slices-load": _m("sp_slices.cu", "no barrier after the slice is loaded",
                         "__syncthreads();   // the slice is there", "", "thread"),
    "sp-slices-end": _m("sp_slices.cu", "no barrier before the next slice", "__syncthreads();   // nobody", "//",
                        "thread", shape=(2300, 6, 512, 0.05)),
    "lcg-rows-late": _m("lcg_rows.cu", "a barrier after eight rows alone",
                        "                    __syncthreads();   // the next row may add to the same place\n"
                        "                }", "                }\n                __syncthreads();", "thread"),
    "lcg-warp-row": _m("lcg_warp.cu", "no barrier of the warp after a row", "__syncwarp();   // the next row", "//",
                       "thread"),
    "feedback-ties": _m("feedback.cu", "every tie at the threshold is kept", "if (equal && tie == ties)\n",
                        "if (equal)\n", "order"),
    "feedback-xi-early": _m("feedback.cu", "xi changes while others read a",
                            "__syncthreads();   // nobody needs a any more", "//", "thread"),
    "feedback-R14": _m("feedback.cu", "xi without what the storage rounded off (R14)", "a[i] = a[i] - c;",
                       "a[i] = keep ? 0 : a[i];", "order"),
    "cholesky-column": _m("cholesky.cu", "no barrier after a column",
                          "__syncthreads();   // column p is final", "", "thread"),
    "cholesky-damping": _m("cholesky.cu", "S without m lam", "i / m == i % m ? shift : 0", "0.0f", "order"),
}  # fmt: skip


# Two blocks at once: each has several slices, one after another.
SMALL = replace(PROPERTIES, multiprocessors=1, blocks_per_multiprocessor=2)


def forbid(a):
    """Let the address sanitizer report whoever touches an array."""
    ctypes.CDLL(None).__asan_poison_memory_region(ctypes.c_void_p(a.ctypes.data), ctypes.c_size_t(a.nbytes))


GUARD = 1 << 20  # bytes; no index that a mutant makes reaches farther


class Broken(CPU):
    """A CPU on which one file of kernels is another, and alone is compiled with the sanitizer.

    What a kernel finds beyond the end of an array must not depend on the heap. So every array lies between two guard
    zones: they read as NaN or -1, what is written there is noticed, and the address sanitizer forbids to touch them.
    """

    def __init__(self, mutant, source, order, seed, sanitize):
        super().__init__(order, seed, "", SMALL, {mutant.file: source})
        self.file, self.wanted, self.guards = mutant.file, sanitize, []

    def empty(self, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        whole = np.full(GUARD + size + GUARD, 0xFF, np.uint8)
        for guard in (whole[:GUARD], whole[GUARD + size :]):
            self.guards.append(guard)  # held to the end, so that no memory is used again
            if self.wanted == "address":
                forbid(guard)
        return whole[GUARD : GUARD + size].view(dtype).reshape(shape)

    def put(self, a, stream=None):
        made = self.empty(a.shape, a.dtype)
        made[...] = a
        return made

    def outside(self):
        """What was written outside an array, "" for nothing; a NaN made from a guard's own NaN does not show."""
        return "" if all((guard == 0xFF).all() for guard in self.guards) else "a write outside an array"

    def library(self, kernel, form, observe=False):
        self.sanitize = self.wanted if catalogue.KERNELS[kernel].file == self.file else ""
        return super().library(kernel, form, observe)


def text(mutant):
    """The broken source; every edit must apply."""
    source = (catalogue.FOLDER / mutant.file).read_text()
    for old, new in mutant.edits:
        assert old in source, (mutant.file, old)
        source = source.replace(old, new, 1)
    return source


def steps(device, index="absolute", count=2, order="ascending"):
    """Steps of Sparse M-FAC in bfloat16 on exact gradients with ties, beside the reference's."""
    rng, worst = np.random.default_rng(5), 0.0
    layout = {"d": 700, "m": 34, "lam": 65536.0, "block_size": 256, "density": 0.1, "dtype": "bfloat16"}
    ours, theirs = sparse_mfac(**layout, index=index, order=order, device=device), reference(**layout)
    for _ in range(count):
        g = (37 * rng.integers(-20, 21, 700)).astype(np.float32)  # ties, and sums that bfloat16 rounds
        u, wanted = ours.step(g), theirs.step(g)
        a, b = ours.state(), theirs.state()
        for name in ("indices", "values", "xi"):
            if not np.array_equal(np.asarray(a[name], np.float64), np.asarray(b[name], np.float64)):
                return f"{name} differs"
        worst = max(worst, float(np.abs(u - wanted).max() / np.abs(wanted).max()))
    return "" if worst < 1e-5 else f"u is off by {worst:.1g}"


def run(file, p, device, launch=None):
    """Run the kernel of a file on a problem; "" where the result is right, bit for bit (of a given launch: to 1e-4)."""
    if file in ("feedback.cu", "mfac.cu", "cholesky.cu"):
        watched = device.wanted  # a sanitizer, which wants every path of the code and no result
        return steps(device, p.form.index, 1 if watched else 2, "bank" if watched else "ascending")
    w, kernel = p.on(device), file.removesuffix(".cu")
    g, c = device.put(p.g), device.put(p.c)
    omega = device.empty((w.m if kernel.startswith("sp") else w.d,), np.float32)  # NaN
    if kernel.startswith("sp"):
        if launch:
            device.launch("sp", w.form, *launch, w.B_d, w.B_k, w.k, g, w.indices, w.values, omega)
        else:
            T = None if kernel == "sp" else 64
            name = {"sp": "textbook", "sp_warps": "warps", "sp_slices": "slices"}[kernel]
            window.scalar_products(device, w, g, omega, name, T)
        wanted = {"sp": problems.sp_textbook(p, window.threads_for(p.k)), "sp_warps": problems.sp_warps(p)}.get(kernel)
        wanted = problems.sp_slices(p) if wanted is None else wanted
    else:
        if launch:
            device.launch("lcg", w.form, *launch, *w.sizes, c, w.indices, w.values, omega)
        else:
            name = kernel.removeprefix("lcg_") if "_" in kernel else "textbook"
            T = {"textbook": 128, "rows": 128}.get(name)
            window.linear_combination(device, w, c, omega, name, T, None if name != "textbook" else 3)
        wanted = problems.lcg_in_order(p)
    right = np.allclose(omega, wanted, rtol=1e-4) if launch else np.array_equal(omega, wanted)  # other T, other order
    return "" if right else "a wrong result"


def shares(p, device):
    """Whether as many of three thread blocks of lcg.cu write some of omega as ceil(n / B) slices each keep busy."""
    w, c, omega = p.on(device), device.put(p.c), device.empty((p.d,), np.float32)
    library = load(device.library("lcg", w.form, observe=True))
    held = packed("lcg", (*w.sizes, c, w.indices, w.values, omega))
    pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(h) for h in held))
    library.launch_lcg(ctypes.byref(Launch(3, 128, 4 * w.B_d, 0, 0)), pointers)
    events, _ = read(library, "lcg")
    written = (events["space"] == SPACES.index("global")) & (events["kind"] == KINDS.index("write"))
    writers = np.unique(events["block"][written])
    busy = -(-w.slices // -(-w.slices // 3))
    return "" if len(writers) == busy else f"{len(writers)} of {busy} blocks work"


def child(name, check):
    """In a process of its own: run one check on one mutant and say what it saw."""
    mutant = MUTANTS[name] if name in MUTANTS else Mutant(name, "as it is", (), ())
    p = problems.problem(*mutant.shape, Format(mutant.index, "float32"))
    sanitize = check if check in ("thread", "address") else ""
    for order, seed in RUNS if check == "order" else RUNS[:1]:
        device = Broken(mutant, text(mutant), order, seed, sanitize)
        try:
            if check == "work":
                said = shares(p, device)
            else:
                said = run(mutant.file, p, device, mutant.launch) or device.outside()
        except RuntimeError as why:
            said = str(why)
        if said and check in ("order", "work"):
            print(f"SEEN {said}")
            return


def judge(name, check):
    """Run one check in a child process; return what it saw, "" for nothing."""
    environment = os.environ | {
        "OPENBLAS_NUM_THREADS": "1", "ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "exitcode=66 report_bugs=1",
    }  # fmt: skip
    library = {"thread": "libtsan.so", "address": "libasan.so"}.get(check)
    if library:
        found = subprocess.run(["g++", f"-print-file-name={library}"], capture_output=True, text=True).stdout.strip()
        assert os.path.isabs(found), f"g++ has no {library}"
        environment["LD_PRELOAD"] = found
    command = [sys.executable, "-m", "tests.gpu.mutants", name, check]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    marks = ("data race", "AddressSanitizer: ", "runtime error:")
    lines = [line.strip() for line in done.stderr.splitlines() if any(mark in line for mark in marks)]
    places = [line.strip() for line in done.stderr.splitlines() if ".cu:" in line]
    if library and lines:
        return f"{lines[0]} {places[0] if places else ''}"
    if done.stdout.startswith("SEEN"):
        return done.stdout[5:].strip()
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    assert done.returncode == 0, done.stdout + done.stderr
    return ""


def digest(mutant):
    """What a record is true of: the broken source and how it is launched."""
    about = (text(mutant), mutant.index, mutant.launch, mutant.shape)
    return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


def checks(mutant):
    """The checks that are run on a mutant."""
    fit = dict.fromkeys(CHECKS, True)
    fit["work"] = mutant.file == "lcg.cu" and not mutant.launch  # shares of the slices, by the launcher's own choice
    fit["thread"] = not mutant.launch or mutant.launch[0] < 100  # 131,072 threads are too many for the sanitizer
    return [check for check in CHECKS if fit[check]]


def recorded():
    """Which checks saw which mutant, by name, and of which source that is true."""
    return json.loads(RECORDED.read_text()) if RECORDED.exists() else {}


def record():
    """Run every check on every mutant that is new or has changed."""
    known = {name: row for name, row in recorded().items() if name in MUTANTS}
    for name, mutant in MUTANTS.items():
        if known.get(name, {}).get("digest") != digest(mutant):
            seen = [check for check in checks(mutant) if judge(name, check)]
            known[name] = {"seen": seen, "digest": digest(mutant)}
            print(f"{name}: {', '.join(seen)}", flush=True)
            rows = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in MUTANTS if name in known]
            RECORDED.write_text("{\n " + ",\n ".join(rows) + "\n}\n")


def table():
    """The table of docs/kernels.md, line by line."""
    yield "| mutant | what is broken | " + " | ".join(CHECKS) + " |"
    yield "|---|---|" + "---|" * len(CHECKS)
    known = recorded()
    for name, mutant in MUTANTS.items():
        able, seen = checks(mutant), known[name]["seen"]
        cells = ["**yes**" if c == mutant.caught else "yes" if c in seen else "no" if c in able else "" for c in CHECKS]
        yield f"| `{name}` | {mutant.what} | {' | '.join(cells)} |"


if __name__ == "__main__":
    child(*sys.argv[1:]) if len(sys.argv) > 1 else record()
