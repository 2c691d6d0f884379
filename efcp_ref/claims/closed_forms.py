"""Claims that a formula decides: memory (appendix F, Table 3), rank and density (appendix J), what needs other data."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from efcp_ref.claims import figures
from efcp_ref.claims.core import HOLDS, PART, Claim, Condition, Measured, register
from efcp_ref.paper.theory import (
    PAPER_AGAINST_ITSELF,
    dense_window,
    density_of_rank,
    density_of_rank_with_indices,
    gibibytes,
    gigabytes,
    per_parameter,
    percent,
    resnet20_shapes,
    saving,
    sparse_ggt,
    sparse_mfac,
    total,
)
from efcp_ref.paper.theory.memory import BERT_BASE
from efcp_ref.paper.theory.rank import FIGURE_2, RESNET_18, TABLE_12

ONE = 10**6  # parameters: F's figures are per parameter


class Saving(NamedTuple):
    """One ratio of appendix F: as printed, and from the itemised bytes."""

    name: str
    printed: float
    rounded: float  # from bytes rounded as the paper rounds them
    exact: float
    practical: float  # with what an implementation holds besides


def savings() -> tuple[Saving, ...]:
    """Return the ratios of appendix F.

    >>> [(s.name, round(s.rounded, 1), round(s.exact, 2)) for s in savings()]
    [('M-FAC, float32', 45.5, 45.55), ('M-FAC, bfloat16', 58.5, 58.99), ('GGT, float32', 33.3, 33.33)]
    """
    found = []
    for name, m, rows, value, rounded, printed in (
        ("M-FAC, float32", 1024, sparse_mfac, 4, 90, 45.5),
        ("M-FAC, bfloat16", 1024, sparse_mfac, 2, 70, 58.5),
        ("GGT, float32", 100, sparse_ggt, 4, 12, 33.3),
    ):
        dense = total(dense_window(m, ONE))
        exact = per_parameter(rows(m, ONE, value_bytes=value), ONE, m)
        held = total(rows(m, ONE, value_bytes=value, practical=True))
        found.append(Saving(name, printed, saving(4 * m, rounded), saving(4 * m, exact), saving(dense, held)))
    return tuple(found)


def _memory(seeds: Sequence[int]) -> Measured:
    found, bert = savings(), total(dense_window(1024, BERT_BASE))
    ratios = {model: _window_ratio(d) for model, d in (("ResNet-18", RESNET_18), ("BERT-Base", BERT_BASE))}
    window = (
        "dense window of BERT-Base",
        "417 GB, 450 GB",
        f"{gibibytes(bert):.1f} GiB",
        f"{gigabytes(bert):.1f} GB",
        "",
    )
    rows = (
        *((s.name, s.printed, f"{s.rounded:.2f}", f"{s.exact:.2f}", f"{s.practical:.2f}") for s in found),
        window,
        *((f"{model}, window at 1 %: dense over sparse", "", "", f"{r:.2f}", "") for model, r in ratios.items()),
    )
    whole = "Table 3, ResNet-18: the whole process falls by less than the window: D-MFAC / S-MFAC <= window ratio"
    conditions = (
        *(
            Condition(f"{s.name}: printed and recomputed within 0.3 %", _apart(s.printed, s.rounded), 1.003, 1.0)
            for s in found
        ),
        Condition("BERT-Base: 417 GB is the window in GiB within 0.3 %", _apart(gibibytes(bert), 417), 1.003, 1.0),
        Condition(whole, 58.5 / 14.3, ratios["ResNet-18"]),
    )
    columns = ("", "printed", "from rounded bytes", "from itemised bytes", "with what an implementation holds")
    say = {"mfac": found[0].exact, "half": found[1].exact, "ggt": found[2].practical}
    return Measured(columns, rows, conditions, {"savings": found, "say": say})


def _apart(a: float, b: float) -> float:
    return max(a / b, b / a)


def _window_ratio(d: int) -> float:
    return saving(total(dense_window(1024, d)), total(sparse_mfac(1024, d, practical=True, block_size=41728)))


def _memory_figure(measured: Measured) -> Any:
    figure, ax = figures.axes(6.0, 2.8)
    names = [s.name for s in measured.data["savings"]]
    for offset, (label, key) in enumerate(
        (("printed", "printed"), ("itemised bytes", "exact"), ("as held", "practical"))
    ):
        values = [getattr(s, key) for s in measured.data["savings"]]
        ax.barh([n + 0.27 * (offset - 1) for n in range(3)], values, 0.25, color=figures.COLOURS[offset], label=label)
    ax.set_yticks(range(3), names)
    ax.invert_yaxis()
    return figures.finished(figure, ax, "times less memory than the dense window", "")


register(
    Claim(
        "memory",
        "The window takes 45, 58 and 33 times less memory",
        "the memory savings for M-FAC is 45.5x for float and 58.5x for bfloat16 ... for GGT 33.3x",
        "efcp.txt, lines 499 and 516; appendix F; Table 3",
        HOLDS,
        _memory,
        "The ratios come from bytes that the paper rounds; the itemised bytes give {mfac:.2f} and {half:.2f}. F.2 "
        "leaves the vector C of Algorithm 4 out: with it GGT saves {ggt:.1f} times. Table 3 is the memory of the "
        "whole process on a GPU, so its ratio is smaller; the table itself needs an A100 and is not testable here.",
        _memory_figure,
        "Bars of the three ratios: as printed, from itemised bytes, and with everything that is held.",
    )
)


def _table_12(seeds: Sequence[int]) -> Measured:
    shapes = resnet20_shapes()
    ours = {rank: percent(density_of_rank(shapes, rank)) for rank in TABLE_12}
    halved = {rank: percent(density_of_rank_with_indices(shapes, rank)) for rank in TABLE_12}
    cut = {
        kept: (percent(Fraction(kept, RESNET_18)), percent(Fraction(kept, RESNET_18), truncated=True))
        for kept in FIGURE_2
    }
    rows = [(f"rank {rank}", TABLE_12[rank], ours[rank], f"equal bytes: {halved[rank]}") for rank in TABLE_12]
    rows += [
        (f"Figure 2, {kept:,} of 11.69 M entries", FIGURE_2[kept], cut[kept][0], f"cut off: {cut[kept][1]}")
        for kept in FIGURE_2
    ]
    wrong = sum(ours[rank] != TABLE_12[rank] for rank in TABLE_12)
    other = sum(FIGURE_2[kept] not in cut[kept] for kept in FIGURE_2)
    return Measured(
        ("", "printed, %", "recomputed, %", "remark"),
        tuple(rows),
        (
            Condition("entries of Table 12 that differ: 0", float(wrong), 0.0),
            Condition("densities of Figure 2 that neither rounding nor cutting off gives: 0", float(other), 0.0),
        ),
        {"ours": ours, "halved": halved},
    )


def _table_12_figure(measured: Measured) -> Any:
    curves = {
        "equal number of values (Table 12)": (list(TABLE_12), [float(v) for v in measured.data["ours"].values()]),
        "equal bytes, indices counted": (list(TABLE_12), [float(v) for v in measured.data["halved"].values()]),
    }
    return figures.lines(curves, "rank", "density of Sparse M-FAC, %", xscale="log", yscale="log")


register(
    Claim(
        "table-12",
        "A rank takes the memory of a density (Table 12)",
        "if we set 2.98%, S-MFAC will have the same memory usage as LR-MFAC with rank 1",
        "efcp.txt, line 733; Table 12",
        HOLDS,
        _table_12,
        "All five entries come out for ResNet-20 with 1 x 1 convolution shortcuts, a one-dimensional tensor counting "
        "p_1 (R31). They count values alone: with int32 indices the density of equal bytes is half (R42). Of Figure "
        "2's densities four are cut off and not rounded.",
        _table_12_figure,
        "Density against rank on logarithmic axes, two parallel lines: equal values, and equal bytes at half of it.",
    )
)


def _against_itself(seeds: Sequence[int]) -> Measured:
    rows = tuple((c.reading, c.what, c.first_text, c.second_text, c.remark) for c in PAPER_AGAINST_ITSELF)
    apart = [c for c in PAPER_AGAINST_ITSELF if max(c.first, c.second) > 1.02 * min(c.first, c.second)]
    return Measured(
        ("reading", "what", "here", "there", "remark"),
        rows,
        (
            Condition("figures given twice that agree within 2 %: at least 1", 1.0, float(len(rows) - len(apart)), 1.0),
            Condition("figures given twice that differ: 0", float(len(apart)), 0.0),
        ),
        {},
    )


register(
    Claim(
        "against-itself",
        "The paper's figures agree with each other",
        "(figures that the paper gives in two places)",
        "readings R32, R41 and R42",
        PART,
        _against_itself,
        "A reader who checks one place against another finds these. None of them changes the method.",
    )
)


class Needs(NamedTuple):
    """A table or figure that this package cannot put to the test."""

    what: str
    claimed: str
    needed: str


NOT_HERE = (
    Needs(
        "Table 1 (ViT-Tiny, CIFAR-10)",
        "S-MFAC 98.0, SGD 97.8, AdamW 97.9, K-FAC 97.4, SENG 97.7, Shampoo 98.0 % (lines 190 to 195)",
        "a ViT-Tiny pre-trained on ImageNet, CIFAR-10, a GPU, the ASDL grid of 6 rates x 9 dampings",
    ),
    Needs(
        "Figures 1 and 2 (ResNet-18, ImageNet)",
        "D-MFAC 70.03, S-MFAC 70.01, SGD 69.12 %; losses 2.164, 2.185, 2.237 (lines 199, 224)",
        "ImageNet-1K, 88 epochs at batch 1024 with FFCV, 4 to 6 hours of an A100 for each run",
    ),
    Needs(
        "Table 2 (BERT, GLUE/MNLI)",
        "S-MFAC 71.06, 76.40, 84.86; Adam 66.86, 74.77, 84.6 % (lines 237, 238)",
        "BERT-Tiny, -Mini and -Base and MNLI, up to 3 h 20 min of an A100 a run; tuned baselines",
    ),
    Needs(
        "Table 3 (time and memory)",
        "ResNet-18: SGD 12.8, S-MFAC 14.3, D-MFAC 58.5 GB (lines 256 to 258)",
        "an A100 with 82 GB; the ratios in theory are under memory",
    ),
    Needs(
        "Figures 3 and 4 (the metric at scale)",
        "exponential decrease for BERT-Base and ResNet-20 (lines 342 and 344)",
        "the runs of Tables 2 and 10",
    ),
    Needs(
        "Table 4 (eigenvalues, ResNet-20)",
        "at epoch 100: SGD 9.12, D-MFAC .04, S-MFAC 1 % .06 (line 375)",
        "CIFAR-10 and ResNet-20, 100 epochs; here under flatter minima",
    ),
    Needs(
        "Tables 5 and 6, Figure 5 (Shampoo, ImageNet)",
        "Shampoo 68.82 to 70.24 % in 11 h 20 min; S-MFAC 4 h 21 min (lines 393 to 405)",
        "ImageNet, 11 hours of an RTX 3090 or A100 a run",
    ),
    Needs(
        "Table 10 (ResNet-20, CIFAR-10)",
        "SGD 92.16, D-MFAC 92.12, S-MFAC 92.25, D-GGT 87.77, S-GGT 87.73, LR-MFAC 91.43 % (line 629)",
        "CIFAR-10, 164 epochs, a GPU",
    ),
    Needs(
        "Table 11, the BERT half",
        "rank 1 to 8: 57.34 to 67.90 % on BERT-Tiny; rank 8 diverges on BERT-Base (lines 718 to 721)",
        "BERT and MNLI",
    ),
    Needs(
        "Slides, Figure 4 (ResNet-18, CIFAR-100)",
        "EF-SignSGD within 1 point of SGDM; SignSGD 36 points behind at batch 8 (lines 254 to 256)",
        "CIFAR-100, ResNet-18, a GPU; here under batch-size",
    ),
    Needs(
        "Speed of the CUDA kernels",
        "1.5 to 2 times faster than a naive PyTorch version (line 156)",
        "a GPU; see the kernel benchmarks",
    ),
)
