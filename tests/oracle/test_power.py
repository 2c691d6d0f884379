"""The page on the oracle's power says what was measured; the changes in the criteria are held to their floor."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from efcp_ref.oracle.criteria import CRITERIA

ROOT = Path(__file__).parents[2]
FLOOR = 0.90  # of the changes in the criteria, those that say nothing left aside


def _module(path: str) -> Any:
    name = Path(path).stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


power, mutation = _module("docs/_build/power.py"), _module("benchmarks/mutation.py")


def changed() -> dict[str, Any]:
    """What became of the changes in the criteria."""
    return json.loads((ROOT / "benchmarks" / "results" / "mutation.json").read_text(encoding="utf-8"))


def test_the_page_is_what_its_script_writes() -> None:
    """Every figure on it is one of the results."""
    assert power.PAGE.read_text(encoding="utf-8") == power.page(), "run python docs/_build/power.py"


def test_every_criterion_has_its_section() -> None:
    """Inequality, derivation, source, false alarms and detection."""
    page = power.page()
    operations = [name for name, judge in CRITERIA.items() if "replay" not in judge.__module__]
    for name in operations:
        section = page.split(f"\n## `{name}`\n")[1].split("\n## ")[0]
        for part in ("**Inequality.** ", "**Why.** ", "**Source.** ", "**False alarms.** 0 in ", "**Detection.** "):
            assert len(section.split(part)[1].split("\n\n**")[0]) > 30, (name, part)
    section = page.split("\n## Optimizers: replay\n")[1]
    for name in CRITERIA.keys() - set(operations):
        found = len(power.results("false_alarms")["criteria"][name]["alarms"])
        assert f"**False alarms.** `{name}`: {found} in " in section
        assert f"**Detection.** `{name}`: " in section


def test_the_criteria_are_held_by_their_tests() -> None:
    """At least 90 % of a random sample is noticed; every survivor has its reason; the interval is the sample's."""
    told = changed()
    rows = told["rows"]
    killed = [row for row in rows if row["outcome"] == "killed"]
    assert len(rows) == told["sample"] >= 250
    assert told["killed"] == len(killed) >= FLOOR * len(rows)
    assert told["score"] == pytest.approx(len(killed) / len(rows), abs=1e-4)
    assert told["95 % confidence interval"] == list(mutation.interval(len(killed), len(rows)))
    assert all(row.get("why") for row in rows if row["outcome"] == "survived")
    assert all(row["by"] for row in killed)
    assert all(row["now"] != row["was"] for row in rows)


def test_what_was_noticed_at_first_is_kept_apart() -> None:
    """A test written for a survivor does not count for it; no change is drawn twice, none was drawn before."""
    told = changed()
    rows, draws = told["rows"], told["draws"]
    seen = [row for row in rows if row["outcome"] == "killed" and "at first" not in row]
    assert told[power.AT_FIRST] == len(seen) < told["killed"]
    assert told["score before"] == pytest.approx(len(seen) / len(rows), abs=1e-4)
    assert told["95 % confidence interval before"] == list(mutation.interval(len(seen), len(rows)))
    for name in ("sample", "killed", power.AT_FIRST, power.WIRE):
        assert told[name] == sum(one[name] for one in draws)
    assert len({tuple(row[key] for key in mutation.KEYS) for row in rows}) == len(rows)
    assert not [row for row in rows if mutation._kind(row) in told["drawn before"]]
    page = power.page()
    assert f"| {len(seen)} of {len(rows)}: {len(seen) / len(rows):.1%}, 95 % confidence " in page


def test_every_reason_is_that_of_a_survivor() -> None:
    """A reason that explains nothing in the record is not kept."""
    rows = [row for row in changed()["rows"] if row["outcome"] == "survived"]
    for file, words in mutation.WHY:
        assert any(row["file"] == file and words in row["now"] for row in rows), words


def test_a_new_sample_begins_once_the_criteria_have_changed(tmp_path: Path) -> None:
    """The same code: the rows go on; other code: none of them, and nothing like them is drawn again."""
    every = [{"file": "sums.py", "operator": "AddNot", "occurrence": n, "line": n, "was": f"line {n % 3}"}
             for n in range(6)]  # fmt: skip
    record = tmp_path / "record.json"
    told, rows, open_ = mutation.opened(record, every)
    assert (rows, open_, told["drawn before"]) == ([], every, [])
    row = every[1] | {"outcome": "survived", "by": "", "draw": 1, "now": "line"}
    mutation.written(record, told, [row])
    told, rows, open_ = mutation.opened(record, every)
    assert (len(rows), open_, told["drawn from"]) == (1, every, 6)
    record.write_text(record.read_text(encoding="utf-8").replace(told["code"], "other"), encoding="utf-8")
    told, rows, open_ = mutation.opened(record, every)
    assert (rows, told["drawn before"]) == ([], [["sums.py", "AddNot", "line 1"]])
    assert [change["line"] for change in open_] == [0, 2, 3, 5]


def test_a_draw_ends_where_tests_are_written_for_its_survivors() -> None:
    """Only then were the changes that follow not seen by whoever wrote the tests."""
    first = {"draw": 1, "outcome": "killed"}
    assert mutation.draw([]) == mutation.draw([first, first]) == 1
    retried = first | {"at first": "survived"}
    assert mutation.draw([first, retried]) == 2
    assert mutation.draw([first, retried, {"draw": 2, "outcome": "survived"}]) == 2
    shares = mutation.shares([first, retried, {"draw": 1, "outcome": "survived"}])
    assert (shares["killed"], shares[power.AT_FIRST], shares["score"], shares["score before"]) == (2, 1, 0.6667, 0.3333)
    wired = first | {"by": "tests/oracle/criteria/test_pinned.py::test"}
    assert mutation.shares([first, wired, retried | {"by": wired["by"]}])[power.WIRE] == 1


def test_the_interval_is_that_of_clopper_and_pearson() -> None:
    """Known values."""
    assert mutation.interval(9, 10) == (0.555, 0.9975)
    assert mutation.interval(0, 10)[0] == 0
    assert mutation.interval(10, 10)[1] == 1


def test_a_change_is_read_in_place_of_the_file(tmp_path: Path) -> None:
    """Only the one module, under its own name, a package as well as a file."""
    for file, name in (("sums.py", "sums"), ("replay/__init__.py", "replay"), ("replay/run.py", "replay.run")):
        finder = mutation._Changed(mutation.CRITERIA / file, "CHANGED = 7\n")
        assert finder.find_spec("efcp_ref.oracle.exact") is None
        spec = finder.find_spec(f"efcp_ref.oracle.criteria.{name}")
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.CHANGED == 7
        assert (spec.submodule_search_locations is not None) == file.endswith("__init__.py")


def test_what_says_nothing_is_left_aside() -> None:
    """Annotations and enclosures; nothing else of the line."""
    source = "def f(a: int | None) -> int | None:\n    return g(a | 1, truth=lambda: enclose.dots(a + 1))\n"
    aside = mutation.aside(source)
    places = [1000 * (n + 1) + i for n, line in enumerate(source.splitlines()) for i, c in enumerate(line) if c in "|+"]
    assert [place in aside for place in places] == [True, True, False, True]


@pytest.mark.parametrize(
    ("operator", "made"),
    [
        ("core/ReplaceBinaryOperator_Add_Sub", True), ("core/ReplaceBinaryOperator_Add_RShift", False),
        ("core/ReplaceBinaryOperator_BitOr_BitAnd", True), ("core/ReplaceComparisonOperator_Lt_LtE", True),
        ("core/ReplaceComparisonOperator_Lt_Is", False), ("core/NumberReplacer", True),
        ("core/VariableReplacer", False), ("core/ReplaceUnaryOperator_USub_Not", False),
        ("core/ReplaceComparisonOperator_Is_IsNot", True), ("core/ReplaceComparisonOperator_Eq_LtE", False),
    ],
)  # fmt: skip
def test_which_changes_are_made(operator: str, made: bool) -> None:
    """Those that only a test can notice."""
    assert mutation.wanted(operator) == made


def test_every_criterion_has_tests_that_exist() -> None:
    """A file without tests would lose every change to a name that is wrong."""
    names = {path.relative_to(mutation.CRITERIA).parts[0] for path in mutation.CRITERIA.rglob("*.py")}
    assert names == set(mutation.TESTS)
    files = [f"{mutation.HERE}/test_{name}.py" for name in {n for group in mutation.TESTS.values() for n in group}]
    assert [file for file in [*files, mutation.WORKERS] if not (ROOT / file).exists()] == []
