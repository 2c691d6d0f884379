"""Processes that end with this one, and the standard descriptors that they must not be given by accident.

A process that is started here leads a group of its own, and the group ends with this process however that ends: on
SIGTERM and SIGHUP this process kills it; where it has no time to (SIGKILL), Linux does. No thread watches over that:
a thread of the target's process would cost memory, and would not run while the target computes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

STANDARD = ("stdin", "stdout", "stderr")
CLOSED: set[int] = set()  # of 0, 1, 2: those that this process was started without
ENDINGS = (signal.SIGTERM, signal.SIGHUP)
FOLLOWED: set[int] = set()  # a parent that this process does not outlive; empty: it may
_OPEN: dict[subprocess.Popen[bytes], int] = {}  # processes that have not been ended, and the held end of their pipe


def open_standard() -> None:
    """Open a closed standard descriptor on nothing, so that no pipe lands on 0, 1 or 2 and is taken for one.

    A program that is started by ``efcp-ref ... <&-`` or by some schedulers has them closed. The next pipe would take
    their numbers, which are replaced when a child process starts: the oracle's pipe would be lost.
    """
    for number, name in enumerate(STANDARD):
        try:
            os.fstat(number)
        except OSError:
            CLOSED.add(number)
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.dup2(opened, number)
            if opened != number:
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            CLOSED.add(number)
            mode = "w" if number else "r"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until this process ends


def start(
    command: list[str], pass_fds: tuple[int, ...] = (), environment: Mapping[str, str] | None = None, **streams: Any
) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own that ends with this process.

    Args:
        command: program and arguments.
        pass_fds: descriptors that it inherits.
        environment: its variables beside those of this process.
        streams: its ``stdin``, ``stdout`` and ``stderr``, as `subprocess.Popen` takes them.

    Raises:
        OSError: there is no such program.
    """
    mind()
    open_standard()
    end, held = os.pipe()
    try:
        process = subprocess.Popen(
            command, bufsize=0, start_new_session=True, pass_fds=(*pass_fds, end),
            env=os.environ | dict(environment or {}), **streams,
        )  # fmt: skip
        _OPEN[process] = held
        _tie(process.pid, end)
    finally:
        os.close(end)
        if held not in _OPEN.values():
            os.close(held)
    return process


def _tie(group: int, end: int) -> None:
    """Let Linux kill a group when the other end of a pipe is closed, which only this process holds.

    The group holds this end, and nothing is ever written: the one thing that can happen to the pipe is that this
    process closes it or is gone. Elsewhere a Python target still ends when it waits for its next case.
    """
    if hasattr(fcntl, "F_SETSIG"):
        with contextlib.suppress(OSError):  # a system that only looks like Linux
            fcntl.fcntl(end, fcntl.F_SETOWN, -group)
            fcntl.fcntl(end, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_ASYNC)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything in its group, and wait for it."""
    _kill(process)
    process.wait()
    if (held := _OPEN.pop(process, None)) is not None:
        os.close(held)


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        with contextlib.suppress(PermissionError):  # it runs as somebody else
            process.kill()


def follow() -> None:
    """End this process where the one that it follows is gone: nobody will read what it finds.

    Raises:
        SystemExit: it is.
    """
    if FOLLOWED and os.getppid() not in FOLLOWED:
        raise SystemExit(f"the parent of process {os.getpid()} has ended")


def mind() -> None:
    """Let SIGTERM and SIGHUP end the open processes, too, where they would end this one at once.

    Only a main thread can; who starts processes in other threads calls this first.
    """
    if threading.current_thread() is threading.main_thread():
        for number in ENDINGS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _terminated)


def _disown() -> None:
    """Let go of the processes in a copy of this process: they belong to the one that started them."""
    for held in _OPEN.values():
        os.close(held)
    _OPEN.clear()


os.register_at_fork(after_in_child=_disown)


def _terminated(number: int, _: Any) -> None:
    for process in list(_OPEN):
        with contextlib.suppress(OSError):
            _kill(process)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
