"""Where chunks are judged: in this process, in local processes, or on a Dask cluster. All yield finished chunks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict
from typing import IO, Any

from efcp_ref.oracle.chunks import Chunk, Door, Finished, from_line, judge_remotely
from efcp_ref.oracle.targets import UsageError, _import_path

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from efcp_ref.oracle.chunks import serve; serve(sys.argv[2:])"
)
TRIES = 3  # workers that may die on one chunk
PATIENCE = 2.0  # seconds that an idle worker has to end by itself
_ADDRESS = re.compile(r"(?:[a-z]{1,10}://)?(?:[A-Za-z0-9_.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):([0-9]{1,5})")
ANSWER = 10.0  # seconds that a scheduler has to answer
AHEAD = 4  # chunks per Dask thread that are submitted before they are needed
Finishes = Generator[Finished, None, None]


class LostWorkers(RuntimeError):
    """Workers of the oracle itself died again and again on the same chunk, or could not start."""


def cores() -> int:
    """Return the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- local processes ----------------------------------------------------------------------------------------------


class _Worker:
    """One local process, and the chunk that it is judging."""

    def __init__(self, door: Door) -> None:
        from efcp_ref.oracle.targets import ONE_THREAD

        self.chunk: Chunk | None = None
        self._got = bytearray()
        self.said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        command = [sys.executable, "-P", "-c", BOOT, json.dumps(_import_path()), json.dumps(asdict(door))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, bufsize=0,
            env=os.environ | ONE_THREAD,
        )  # fmt: skip

    def give(self, chunk: Chunk) -> None:
        """Send it a chunk; that it is dead shows when its answer is read."""
        self.chunk = chunk
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(asdict(chunk)).encode() + b"\n")

    def read(self) -> bytes | None:
        """Return the whole line when it is there, else what is empty; None where the process ended."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 20)
        if not data:
            return None
        self._got += data
        if not self._got.endswith(b"\n"):
            return b""
        line, self._got = bytes(self._got), bytearray()
        return line

    def last_words(self) -> str:
        """Return the end of what it wrote on stderr."""
        self.said.seek(0)
        return self.said.read().decode(errors="replace").strip()[-1000:]

    def end(self, idle: bool = False) -> None:
        """End it, and its target with it; an idle one ends by itself when its pipe is closed."""
        if idle and self.process.stdin is not None:
            self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
        self.process.terminate()  # a worker in front of a command ends the command's process first
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.said):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.process.wait()


class _Pool:
    """Local workers, and the chunks that wait."""

    def __init__(self, door: Door, jobs: int, chunks: Iterable[Chunk]) -> None:
        self.door, self.jobs, self.chunks = door, jobs, iter(chunks)
        self.again: deque[Chunk] = deque()
        self.tries: dict[Chunk, int] = {}
        self.ready = selectors.DefaultSelector()
        self.workers: set[_Worker] = set()

    def next(self) -> Chunk | None:
        """Return the next chunk to judge."""
        return self.again.popleft() if self.again else next(self.chunks, None)

    def start(self, chunk: Chunk, worker: _Worker | None = None) -> None:
        """Give a chunk to a worker, by default a new one."""
        if worker is None:
            worker = _Worker(self.door)
            self.workers.add(worker)
            self.ready.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
        worker.give(chunk)

    def buried(self, worker: _Worker) -> None:
        """Take the chunk of a dead worker back."""
        chunk = worker.chunk
        assert chunk is not None
        self.ready.unregister(worker.process.stdout)  # type: ignore[arg-type]
        self.workers.remove(worker)
        words = worker.last_words()
        worker.end()
        self.tries[chunk] = self.tries.get(chunk, 0) + 1
        if self.tries[chunk] >= TRIES:
            raise LostWorkers(f"{TRIES} workers of the oracle died on {chunk.id}: {words or 'they said nothing'}")
        self.again.append(chunk)

    def end(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.end()
        self.ready.close()


def locally(door: Door, chunks: Iterable[Chunk], jobs: int) -> Finishes:
    """Judge chunks in ``jobs`` processes, each with a target of its own; yields in the order in which they finish.

    A worker that dies is replaced and its chunk judged again.

    Raises:
        LostWorkers: three died on one chunk.
    """
    pool = _Pool(door, jobs, chunks)
    try:
        while True:
            while len(pool.workers) < jobs and (chunk := pool.next()):
                pool.start(chunk)
            if not pool.workers:
                return
            for key, _ in pool.ready.select():
                yield from _turn(pool, key.data)
    finally:
        pool.end()


def _turn(pool: _Pool, worker: _Worker) -> Iterator[Finished]:
    line = worker.read()
    if line is None:
        pool.buried(worker)
    elif line:
        done = from_line(line)
        assert done is not None
        assert done.chunk == worker.chunk
        yield Finished(done.chunk, done.rows, done.seconds, pool.tries.get(done.chunk, 0))
        if chunk := pool.next():
            pool.start(chunk, worker)
        else:
            pool.ready.unregister(worker.process.stdout)  # type: ignore[arg-type]
            pool.workers.remove(worker)
            worker.end(idle=True)


# --- a Dask cluster -----------------------------------------------------------------------------------------------


def on_dask(door: Door, chunks: Iterable[Chunk], address: str) -> Finishes:
    """Judge chunks on the cluster at ``address``; its workers must see the target under the same name.

    A worker that dies is Dask's to replace; a chunk that arrives twice counts once.

    Raises:
        UsageError: Dask is not installed, nobody answers, or the workers hold another version.
        LostWorkers: Dask gave up on a chunk.
    """
    client = _client(address)
    try:
        yield from _gathered(client, door, iter(chunks))
    finally:
        client.close()


def address_of(text: str) -> str:
    """Return the address of a scheduler, checked before Dask sees it.

    Raises:
        UsageError: it is not HOST:PORT, with or without a scheme.

    >>> address_of("tcp://127.0.0.1:8786"), address_of("[::1]:8786")
    ('tcp://127.0.0.1:8786', '[::1]:8786')
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found.group(1)) < 1 << 16:
        raise UsageError(f"--dask {text[:80]!r}, must be the address of a scheduler, such as tcp://127.0.0.1:8786")
    return text


def _client(address: str) -> Any:
    address = address_of(address)
    try:
        from distributed import Client
    except ImportError:
        raise UsageError("--dask needs Dask: pip install 'efcp-ref[distributed]'") from None
    try:
        client = Client(address, timeout=ANSWER, set_as_default=False)
    except Exception as why:  # whatever a wrong address makes of itself: no host, no port, no scheme, no certificate
        raise UsageError(f"--dask {address}: no cluster answers ({str(why)[:200]})") from None
    mine = oracle_version()
    versions = client.run(oracle_version, on_error="return")
    others = {worker: v for worker, v in versions.items() if v != mine}
    if not versions:
        client.close()
        raise UsageError(f"--dask {address}: the cluster has no workers")
    if others:
        worker, found = next(iter(others.items()))
        client.close()
        raise UsageError(f"--dask {address}: worker {worker} holds efcp_ref {found}, this is {mine}")
    return client


def oracle_version() -> str:
    """Return what must be the same on both sides: the oracle's own files, by content."""
    import hashlib
    from pathlib import Path

    import efcp_ref

    root = Path(efcp_ref.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(p for room in ("oracle", "paper") for p in (root / room).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _gathered(client: Any, door: Door, chunks: Iterator[Chunk]) -> Finishes:
    from distributed import as_completed

    def submit(chunk: Chunk) -> Any:
        return client.submit(
            judge_remotely, asdict(door), asdict(chunk), key=f"efcp-ref-{run}-{chunk.id}", pure=False, retries=TRIES
        )

    run = f"{os.getpid()}-{time.monotonic_ns()}"
    room = max(2, AHEAD * sum(client.nthreads().values()))
    first = [submit(chunk) for _, chunk in zip(range(room), chunks, strict=False)]
    pending = as_completed(first, loop=client.loop)
    for future in pending:
        try:
            done = from_line(future.result())
        except Exception as why:  # KilledWorker, or what the target's own import raised there
            raise LostWorkers(f"{future.key}: {type(why).__name__}: {why}") from None
        assert done is not None
        yield done
        if chunk := next(chunks, None):
            pending.add(submit(chunk))
