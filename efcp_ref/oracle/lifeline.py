"""Processes that end with this one, and the standard descriptors that they must not be given by accident."""

from __future__ import annotations

import os
import sys

STANDARD = ("stdin", "stdout", "stderr")
CLOSED: set[int] = set()  # of 0, 1, 2: those that this process was started without


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
