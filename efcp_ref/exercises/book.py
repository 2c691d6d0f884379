"""All exercises, by the paper line that they are about."""

from __future__ import annotations

from efcp_ref.exercises import diagonal, ggt, kernels, loop, low_rank, selection, window  # noqa: F401
from efcp_ref.exercises.core import Exercise
from efcp_ref.exercises.registry import EXERCISES

_ORDER = ("1", "2", "3", "4", "5", "6", "7", "K", "W", "S1")


def ids() -> list[str]:
    """Return the exercises: Algorithms 1 to 7, then Top-k (K), the window (W) and the slides (S1).

    >>> len(ids()), ids()[:4]
    (28, ['1:6', '1:7', '1:8', '1:9'])
    """

    def place(id: str) -> tuple[int, int]:
        key, line = id.split(":")
        return _ORDER.index(key), int(line)

    return sorted(EXERCISES, key=place)


def exercise(id: str) -> Exercise:
    """Return one exercise.

    Raises:
        ValueError: there is none.

    >>> exercise("1:6").operation
    'top_k'
    """
    if id not in EXERCISES:
        raise ValueError(f"no exercise {id!r}, choose from {', '.join(ids())}")
    return EXERCISES[id]


def statement(id: str) -> str:
    """Return what is asked.

    >>> print(statement("2:8").splitlines()[0])
    Return the positions j that thread Tid reads of a row of k entries, T threads sharing the row.
    """
    return exercise(id).text


def starter(id: str) -> str:
    """Return the code to start from: the head, the docstring, no body.

    >>> starter("2:8").splitlines()[0]
    'def lane_reads(Tid, k, T):'
    """
    return exercise(id).starter


def hint(id: str) -> str:
    """Return a hint.

    >>> hint("K:2")
    'A product in floating point can land above the integer that is meant; fractions.Fraction(str(x)) is exact.'
    """
    return exercise(id).hint


def solution(id: str) -> str:
    """Return the code of one right answer.

    >>> print(solution("2:8").splitlines()[-1])
        return list(range(Tid, k, T))
    """
    return exercise(id).source
