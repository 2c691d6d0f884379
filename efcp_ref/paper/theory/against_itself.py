"""The paper against itself: places where it gives two figures for one thing (R32, R41, R42), with both."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conflict:
    """One quantity, two figures: the text of each as printed, its number, and its line in efcp.txt."""

    reading: str
    what: str
    first: float
    first_text: str
    first_line: int
    second: float
    second_text: str
    second_line: int
    remark: str


def minutes(hours: int, rest: int) -> int:
    """Return a training time of Table 3 in minutes.

    >>> minutes(5, 33)
    333
    """
    return 60 * hours + rest


PAPER_AGAINST_ITSELF = (
    Conflict("R32", "window of dense M-FAC on BERT-Base, gigabytes", 450, "more than 450GB of GPU RAM", 25,
             417, "the ring buffer G alone is 417GB", 228,
             "448.4 GB or 417.6 GiB: one figure in two units"),
    Conflict("R32", "saving of Sparse GGT", 20, "approximately 20x (relative to GGT)", 158,
             33.3, "33.3x", 516, "practice and theory"),
    Conflict("R32", "saving of Sparse M-FAC", 30, "30x (relative to M-FAC)", 158,
             45.5, "45.5x for float and 58.5x for bfloat16", 499, "practice and theory"),
    Conflict("R41", "extra running time of D-MFAC over SGD on ResNet-18, percent", 25, "25% larger running time", 243,
             100 * (minutes(5, 33) / minutes(4, 10) - 1), "4h 10m and 5h 33m (Table 3)", 258, "Table 3 gives 33 %"),
    Conflict("R41", "memory of Sparse M-FAC on ResNet-18, GB", 22.5, "a maximum of 22.5 GB", 37,
             14.3, "S-MFAC 14.3 GB", 209, "two set-ups, not named"),
    Conflict("R41", "memory of SGD on ResNet-18, GB", 21.3, "21.3 GB used by SGD with momentum", 37,
             12.8, "SGD uses 12.8 GB", 209, "two set-ups, not named"),
    Conflict("R41", "memory of dense M-FAC on ResNet-18, GB", 56, "more than 56GB GPU RAM", 37,
             59, "D-MFAC in the same setting needs 59 GB", 209, "two set-ups, not named"),
    Conflict("R41", "memory of dense M-FAC on ResNet-18 in section 4, GB", 59, "needs 59 GB", 209,
             58.5, "58.5 GB (Table 3)", 258, "rounded"),
    Conflict("R41", "best learning rate of GGT", 1, "loss: (1, 1e-6), accuracy: (1, 1e-5) (Table 7)", 463,
             0.1, "eta = 0.1 (Table 8)", 469, "one of them is not the best"),
    Conflict("R42", "appendix that describes Low-rank M-FAC, numbered from A = 1", 5, "in Appendix E of the paper", 729,
             9, "I. Compressing Preconditioners via Low-Rank Approximation", 651, "E holds the hyper-parameters"),
    Conflict("R42", "table of the ablation over ranks", 8, "Table 8 in Appendix", 733,
             11, "Table 11. ... decomposition ranks", 715, "Table 8 holds hyper-parameters"),
)  # fmt: skip
