"""The paper's closed-form numbers, and the places where it gives two figures for one thing."""

from fractions import Fraction
from math import prod

import pytest

from efcp_ref.paper import theory
from efcp_ref.paper.theory import against_itself, memory, rank


def by_reading(reading):
    return {entry.what: entry for entry in theory.PAPER_AGAINST_ITSELF if entry.reading == reading}


# Appendix F


@pytest.mark.parametrize(("value_bytes", "itemised", "rounded"), [(4, "89.92", 90), (2, "69.44", 70)])
def test_bytes_of_sparse_mfac_are_the_itemised_ones(value_bytes, itemised, rounded):
    d, m = 10**6, 1024
    items = theory.sparse_mfac(m, d, value_bytes=value_bytes)
    assert theory.total(items) == Fraction(itemised) * d + 4 * m
    assert theory.per_parameter(items, d, m) == Fraction(itemised)
    assert abs(Fraction(itemised) - rounded) < 1
    rows = {"I": Fraction(4 * m * d, 100), "V": Fraction(value_bytes * m * d, 100)}
    assert items == rows | {"xi": 4 * d, "r_m": 4 * m, "r_d": 4 * d}


def test_bytes_of_sparse_ggt_are_the_itemised_ones():
    d, m = 10**6, 100
    items = theory.sparse_ggt(m, d)
    assert items == {"I": 4 * d, "V": 4 * d, "xi": 4 * d, "r_m": 4 * m}
    assert theory.total(items) == 12 * d + 4 * m


def test_the_printed_ratios_and_the_exact_ones():
    """45.5 = 4096/90 and 58.5 = 4096/70, from rounded bytes; 45.55 and 58.99 from the itemised ones; 33.3 = 400/12."""
    d = 10**9  # the 4 m bytes of r_m do not show
    dense = theory.total(theory.dense_window(1024, d))
    assert dense == 4096 * d
    assert f"{theory.saving(4096, 90):.1f}" == "45.5"
    assert f"{theory.saving(4096, 70):.1f}" == "58.5"
    assert f"{theory.saving(dense, theory.total(theory.sparse_mfac(1024, d))):.2f}" == "45.55"
    assert f"{theory.saving(dense, theory.total(theory.sparse_mfac(1024, d, value_bytes=2))):.2f}" == "58.99"
    ggt = theory.total(theory.dense_window(100, d))
    assert f"{theory.saving(ggt, theory.total(theory.sparse_ggt(100, d))):.1f}" == "33.3"


def test_R32_450_gb_and_417_gb_are_one_figure_in_two_units():
    window = theory.total(theory.dense_window(1024, memory.BERT_BASE))
    assert window == 4 * 1024 * 109_480_000
    assert round(theory.gigabytes(window), 1) == 448.4
    assert round(theory.gibibytes(window), 1) == 417.6
    entry = by_reading("R32")["window of dense M-FAC on BERT-Base, gigabytes"]
    assert (entry.first, entry.second) == (450, 417)
    assert int(theory.gibibytes(window)) == entry.second
    assert abs(theory.gigabytes(window) - entry.first) < 2


def test_R32_practice_saves_less_than_theory():
    entries = by_reading("R32")
    assert (entries["saving of Sparse GGT"].first, entries["saving of Sparse M-FAC"].first) == (20, 30)
    d = 10**6
    dense = theory.total(theory.dense_window(100, d))
    printed, practical = (theory.total(theory.sparse_ggt(100, d, practical=p)) for p in (False, True))
    assert practical - printed == 4 * d + 4 * 100 * 100  # C of Algorithm 4, and the m x m scalar products
    assert theory.saving(dense, practical) < 25 < 33 < theory.saving(dense, printed)
    mfac = theory.sparse_mfac(1024, d, practical=True)
    assert theory.total(mfac) - theory.total(theory.sparse_mfac(1024, d)) == 4 * 1024**2


def test_practical_rows_count_a_ceiling_in_every_block():
    items = theory.sparse_mfac(2, 10, density=0.3, practical=True, block_size=4)  # 2 + 2 + 1 entries in a row
    assert (items["I"], items["V"]) == (4 * 2 * 5, 4 * 2 * 5)
    assert theory.sparse_mfac(2, 10, density=0.3)["I"] == 4 * 2 * 3
    assert theory.sparse_mfac(2, 10, density=0.3, value_bytes=2, index_bytes=2)["I"] == 2 * 2 * 3


def test_bad_sizes_name_the_argument():
    with pytest.raises(ValueError, match="m = 0"):
        theory.dense_window(0, 1)
    with pytest.raises(ValueError, match="density = 0"):
        theory.sparse_mfac(1, 1, density=0)
    with pytest.raises(TypeError, match="index_bytes"):
        theory.sparse_ggt(1, 1, index_bytes=1.5)


# Appendix J and Figure 2


def test_R31_all_of_table_12_comes_out_when_a_one_dimensional_tensor_counts_p():
    shapes = theory.resnet20_shapes()
    assert theory.parameters(shapes) == 272_474
    for rho, printed in rank.TABLE_12.items():
        assert theory.percent(theory.density_of_rank(shapes, rho)) == printed
    assert f"{100 * float(theory.density_of_rank(shapes, 1)):.5f}" == "2.98267"


def test_R31_the_empty_product_as_one_misses_table_12():
    shapes = theory.resnet20_shapes()
    literal = theory.density_of_rank(shapes, 1, "p+1")
    assert f"{100 * float(literal):.4f}" == "2.9985"
    assert theory.percent(literal) != rank.TABLE_12[1]
    vectors = sum(len(shape) == 1 for shape in shapes)
    assert literal - theory.density_of_rank(shapes, 1) == Fraction(vectors, 272_474)


def test_resnet20_has_twenty_weighted_layers_beside_the_shortcuts():
    convolutions = [s for s in theory.resnet20_shapes(shortcuts="identity") if len(s) == 4]
    assert len(convolutions) == 19  # and the last layer
    both = theory.resnet20_shapes(), theory.resnet20_shapes(shortcuts="identity")
    extra = [s for s in both[0] if len(s) == 4 and s[2] == 1]
    assert extra == [(32, 16, 1, 1), (64, 32, 1, 1)]
    assert theory.parameters(both[0]) - theory.parameters(both[1]) == sum(map(prod, extra)) + 2 * (32 + 64)
    assert theory.parameters(theory.resnet20_shapes(classes=100)) == 272_474 + 90 * 65


def test_four_of_figure_2s_densities_are_cut_off():
    wrong = []
    for kept, printed in rank.FIGURE_2.items():
        share = Fraction(kept, rank.RESNET_18)
        assert theory.percent(share, truncated=True) == printed
        if theory.percent(share) != printed:
            wrong.append(printed)
    assert wrong == ["0.85", "0.42", "0.12", "0.08"]


# The paper against itself


def test_R41_running_time_of_dense_mfac_is_a_third_more_not_a_quarter():
    entry = by_reading("R41")["extra running time of D-MFAC over SGD on ResNet-18, percent"]
    assert (against_itself.minutes(4, 10), against_itself.minutes(5, 33)) == (250, 333)
    assert entry.first == 25
    assert round(entry.second, 1) == 33.2


@pytest.mark.parametrize(
    ("what", "first", "second"),
    [
        ("memory of Sparse M-FAC on ResNet-18, GB", 22.5, 14.3),
        ("memory of SGD on ResNet-18, GB", 21.3, 12.8),
        ("memory of dense M-FAC on ResNet-18, GB", 56, 59),
        ("memory of dense M-FAC on ResNet-18 in section 4, GB", 59, 58.5),
        ("best learning rate of GGT", 1, 0.1),
    ],
)
def test_R41_both_figures_are_listed(what, first, second):
    entry = by_reading("R41")[what]
    assert (entry.first, entry.second) == (first, second)
    assert str(entry.first).rstrip("0").rstrip(".") in entry.first_text
    assert str(entry.second) in entry.second_text


def test_R41_section_4_agrees_with_itself_on_four_point_six():
    """58.5 / 12.8 is the 4.6 times of section 4; the introduction's 56 / 21.3 is 2.6."""
    entries = by_reading("R41")
    sgd, dense = (entries[f"memory of {name} on ResNet-18, GB"] for name in ("SGD", "dense M-FAC"))
    assert round(58.5 / sgd.second, 1) == 4.6
    assert round(dense.first / sgd.first, 1) == 2.6


def test_R42_appendix_j_cites_the_wrong_appendix_and_table():
    entries = by_reading("R42")
    appendix = entries["appendix that describes Low-rank M-FAC, numbered from A = 1"]
    assert ["ABCDEFGHIJK"[int(n) - 1] for n in (appendix.first, appendix.second)] == ["E", "I"]
    table = entries["table of the ablation over ranks"]
    assert (table.first, table.second) == (8, 11)


def test_R42_table_12_ignores_the_bytes_of_the_indices():
    shapes = theory.resnet20_shapes()
    halved = theory.density_of_rank_with_indices(shapes, 1)
    assert theory.percent(halved) == "1.49"
    d = theory.parameters(shapes)
    low_rank_bytes = 4 * sum(theory.low_rank_entries(shape, 1) for shape in shapes)
    assert halved * d * (4 + 4) == low_rank_bytes
    assert theory.density_of_rank_with_indices(shapes, 1, value_bytes=2, index_bytes=2) == halved


def test_every_entry_is_a_conflict_with_two_places_in_the_paper():
    for entry in theory.PAPER_AGAINST_ITSELF:
        assert entry.first != entry.second
        assert entry.first_line != entry.second_line
        assert 1 <= min(entry.first_line, entry.second_line) <= max(entry.first_line, entry.second_line) <= 830
