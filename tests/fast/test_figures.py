"""The table, the page and the picture say what the results say, and every figure has been measured."""

import statistics
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


def test_what_is_missed_is_named_and_comes_with_its_profile(table):
    found = table.results()
    slow = {**found, "imports": {**found["imports"], "medians": dict.fromkeys(found["imports"]["medians"], 9.0)}}
    assert "import efcp_ref; efcp-ref --help. The tables below" in table.missed(slow)
    text = table.section(found)
    assert "not measured" not in text
    for part in ("CSR product, all of it in the cache", "Top-k of a slice", "SP: the row of S", "LCG and x / lam"):
        assert f"| {part} |" in text


def test_what_limits_top_k_is_what_the_results_say(table):
    passes = table.results()["top_k"]["profile, ns per entry, 1 thread"]
    inside = {name: ns for name, ns in passes.items() if name in ("magnitude", "finite") or name.startswith("of it")}
    assert max(inside, key=inside.get) == "of it: positions"
    assert "search for positions" in table.LIMIT


def test_the_parts_of_a_step_are_the_step(table):
    for part in table.results()["step_resnet"]["parts"].values():
        whole = statistics.median(part["seconds"])
        assert sum(one["seconds"] for one in part["profile"].values()) == pytest.approx(whole)
        assert min(one["seconds"] for one in part["profile"].values()) >= 0


def test_an_interrupted_run_goes_on_where_it_was(monkeypatch, tmp_path, capsys):
    """The figure in which Ctrl-C came is measured again, those before are not, and a whole run is forgotten."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench
    import measure

    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(measure, "UNFINISHED", tmp_path / ".unfinished")
    calls, stop = [], [True]

    def figure(name):
        def run():
            """Nothing."""
            calls.append(name)
            if name == "two" and stop:
                raise KeyboardInterrupt
            return {"medians": {}}

        return run

    monkeypatch.setattr(bench, "FIGURES", {name: figure(name) for name in ("one", "two", "three")})
    assert bench.main([]) == 130
    assert "interrupted in two, 1 of 3 measured" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [".unfinished", "one.json"]
    stop.clear()
    assert bench.main([]) == 0
    assert "continued: one measured before" in capsys.readouterr().out
    assert calls == ["one", "two", "two", "three"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "three.json", "two.json"]
    assert bench.main(["one"]) == 0
    assert calls[-1] == "one"


def test_other_sources_begin_anew(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import measure

    monkeypatch.setattr(measure, "UNFINISHED", tmp_path / ".unfinished")
    measure.remember(["a", "b"], ["a"])
    assert measure.already(["a", "b"]) == ["a"]
    assert measure.already(["a"]) == []
    monkeypatch.setattr(measure, "digest", lambda: "other")
    assert measure.already(["a", "b"]) == []
    measure.UNFINISHED.write_text("cut")
    assert measure.already(["a", "b"]) == []


def test_slopes(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from measure import ratio, slope

    assert slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert ratio({"a": [2, 9, 4], "b": [1, 3, 4]}, "a", "b") == 2
