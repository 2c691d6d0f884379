"""Appendix J: the gradient density that takes as much memory as a rank; the densities of Figure 2."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import Any

from efcp_ref.paper import _validate as check

Shape = tuple[int, ...]


def resnet20_shapes(classes: int = 10, shortcuts: str = "convolution") -> list[Shape]:
    """Return the shapes of ResNet-20's tensors for CIFAR: convolutions, batch-norm pairs, the last layer.

    Source: appendix J, "ResNet-20 (272k params) with 10 classes". Table 12 comes out with 1 x 1 convolution shortcuts
    (272,474 parameters); with parameter-free shortcuts ("identity") there are 269,722.

    Args:
        classes: number of classes, at least 1.
        shortcuts: "convolution" or "identity", where the width doubles.

    Returns:
        Shapes, output dimension first.

    Raises:
        TypeError, ValueError: classes is not an integer of at least 1, or shortcuts is neither.

    Cost: 65 tuples.

    >>> parameters(resnet20_shapes()), parameters(resnet20_shapes(shortcuts="identity"))
    (272474, 269722)
    """
    check.integer("classes", classes, 1)
    check.choice("shortcuts", shortcuts, ("convolution", "identity"))
    shapes = _convolution(16, 3, 3)
    for width, before in ((16, 16), (32, 16), (64, 32)):
        shapes += _convolution(width, before, 3)
        for _ in range(5):
            shapes += _convolution(width, width, 3)
        if before != width and shortcuts == "convolution":
            shapes += _convolution(width, before, 1)
    return [*shapes, (classes, 64), (classes,)]


def _convolution(outputs: int, inputs: int, size: int) -> list[Shape]:
    return [(outputs, inputs, size, size), (outputs,), (outputs,)]  # weights; batch norm's scale and shift


def parameters(shapes: Sequence[Shape]) -> int:
    """Return d, the number of entries in all tensors.

    >>> parameters([(100, 200, 300), (7,)])
    6000007
    """
    return sum(prod(shape) for shape in shapes)


def low_rank_entries(shape: Shape, rank: int, one_dimensional: str = "p") -> int:
    """Return the entries that Low-rank M-FAC stores for a tensor: ``(p_1 + p_2 * ... * p_s) rho``.

    Source: appendix J (efcp.txt line 729). A one-dimensional tensor counts p_1 ("p": Table 12 comes out, R31) or, with
    the empty product 1 read literally, p_1 + 1 ("p+1").

    Args:
        shape: (p1, ..., ps), every axis at least 1.
        rank: rho, at least 1.
        one_dimensional: "p" or "p+1".

    Raises:
        TypeError, ValueError: an axis or rank is not an integer of at least 1, or one_dimensional is neither.

    Cost: s multiplications.

    >>> low_rank_entries((16, 3, 3, 3), 2), low_rank_entries((16,), 1), low_rank_entries((16,), 1, "p+1")
    (86, 16, 17)
    """
    axes = [check.integer("shape", p, 1) for p in shape]
    rank = check.integer("rank", rank, 1)
    check.choice("one_dimensional", one_dimensional, ("p", "p+1"))
    rest = 0 if len(axes) == 1 and one_dimensional == "p" else prod(axes[1:])
    return (axes[0] + rest) * rank


def density_of_rank(shapes: Sequence[Shape], rank: int, one_dimensional: str = "p") -> Fraction:
    """Return Delta, the density at which Sparse M-FAC stores as many entries as Low-rank M-FAC at this rank.

    Source: appendix J, ``Delta = (rho / d) sum_i (p_1 + p_2 * ... * p_s)``, Table 12. It counts values alone; see
    `density_of_rank_with_indices` (R42).

    Args:
        shapes: shape of every tensor.
        rank: rho, at least 1.
        one_dimensional: see `low_rank_entries`.

    Returns:
        Delta, exact.

    Raises:
        TypeError, ValueError: see `low_rank_entries`.

    Cost: a few multiplications a tensor.

    >>> round(100 * float(density_of_rank(resnet20_shapes(), 1)), 5)
    2.98267
    """
    stored = sum(low_rank_entries(shape, rank, one_dimensional) for shape in shapes)
    return Fraction(stored, parameters(shapes))


def density_of_rank_with_indices(
    shapes: Sequence[Shape], rank: int, value_bytes: int = 4, index_bytes: int = 4
) -> Fraction:
    """Return the density of equal *bytes*: an entry of a sparse row also stores its index (R42).

    ``Delta value_bytes / (value_bytes + index_bytes)``; with float32 and int32 half of Table 12.

    Args:
        shapes: shape of every tensor.
        rank: rho, at least 1.
        value_bytes: bytes of a value.
        index_bytes: bytes of an index.

    Raises:
        TypeError, ValueError: see `low_rank_entries`; bytes are integers of at least 1.

    Cost: that of `density_of_rank`.

    >>> round(100 * float(density_of_rank_with_indices(resnet20_shapes(), 1)), 2)
    1.49
    """
    value, index = check.integer("value_bytes", value_bytes, 1), check.integer("index_bytes", index_bytes, 1)
    return density_of_rank(shapes, rank) * Fraction(value, value + index)


TABLE_12 = {1: "2.98", 2: "5.97", 4: "11.93", 8: "23.86", 16: "47.72"}  # rank -> Delta in %, as printed

RESNET_18 = 11_690_000  # parameters; the paper says "11.7M" (efcp.txt line 243)

FIGURE_2 = {  # kept entries -> density in %, as printed (efcp.txt lines 215-223)
    117_000: "1.00", 100_000: "0.85", 75_000: "0.64", 50_000: "0.42", 25_000: "0.21",
    20_000: "0.17", 15_000: "0.12", 10_000: "0.08", 5_000: "0.04",
}  # fmt: skip


def percent(share: Any, truncated: bool = False) -> str:
    """Return a share as a percentage with two decimals, rounded half up, or cut off where ``truncated``.

    Four of Figure 2's densities are cut off: .85, .42, .12, .08.

    >>> percent(Fraction(100_000, RESNET_18)), percent(Fraction(100_000, RESNET_18), truncated=True)
    ('0.86', '0.85')
    """
    hundredths = Fraction(share) * 10**4
    whole = int(hundredths) if truncated else int(hundredths + Fraction(1, 2))
    return f"{whole // 100}.{whole % 100:02d}"
