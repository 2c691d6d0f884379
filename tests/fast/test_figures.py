"""The table, the page and the picture say what the results say, and every figure has been measured."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("table", "picture", "measure"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import table

    return table


def test_the_table_and_the_page_are_those_of_the_results(table):
    found = table.results()
    assert table.table(found) in (BENCHMARKS / "results" / "table.md").read_text()
    text = table.DOCS.read_text()
    assert table.page(text, found) == text


def test_the_picture_is_that_of_the_results(table):
    from picture import picture

    drawn = picture(table.results()["growth"])
    assert all(place.read_text() == drawn for place in table.PICTURES)


def test_every_figure_has_been_measured_and_names_its_command(table):
    found = table.results()
    for row in table.ROWS:
        one = found[row.figure]
        assert one["command"] == f"python benchmarks/bench.py {row.figure}"
        assert one["clock"] == "perf_counter"
        assert one["machine"]["cores"] >= 1


def test_a_figure_that_is_not_reached_says_so(table):
    found = table.results()
    row = next(row for row in table.ROWS if row.figure == "imports")
    slow = {**found, "imports": {**found["imports"], "medians": dict.fromkeys(found["imports"]["medians"], 9.0)}}
    line = next(line for line in table.table(slow).splitlines() if row.what in line)
    assert "9.00 s | **no**" in line


def test_slopes(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from measure import ratio, slope

    assert slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert ratio({"a": [2, 9, 4], "b": [1, 3, 4]}, "a", "b") == 2
