"""What changed between two reports."""

import json
import os

import pytest
from click.testing import CliRunner

from efcp_ref.cli import main
from efcp_ref.oracle.chunks import Door
from efcp_ref.oracle.report.diff import difference, read
from efcp_ref.oracle.report.run import check
from efcp_ref.oracle.targets import UsageError
from tests.oracle.helpers import OPERATIONS, wrong


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A report on the wrong target, and one on the target with everything mended but one thing broken."""
    here = tmp_path_factory.mktemp("diff")
    target = here / "wrong.py"
    check(Door(wrong(here)), OPERATIONS, 8, folder=here / "a", shrink_seconds=0)
    mended = target.read_text().replace("omega[i] =", "omega[i] +=").replace("> 40", "> 1e9")
    target.write_text(mended.replace(".sum(1)", ".sum(1) * 1.001"))
    check(Door(str(target)), OPERATIONS, 6, folder=here / "b", shrink_seconds=0)
    return here / "a", here / "b"


def test_new_failures_fixed_ones_and_ratios(reports):
    found = difference(*map(read, reports))
    assert found.broken == ("sp: pass -> fail",)
    assert set(found.fixed) == {"lcg: fail -> pass", "top_k: error -> pass"}
    assert found.new_cases
    assert all(case.startswith("sp:") for case in found.new_cases)
    assert all(int(case.split(":")[2]) < 6 for case in (*found.new_cases, *found.fixed_cases))
    assert any(entry.startswith("sp T2") for entry in found.larger)
    assert any(entry.startswith("lcg T2") for entry in found.smaller)
    assert found.exit_code == 1


def test_a_report_does_not_differ_from_itself(reports):
    found = difference(read(reports[0]), read(reports[0] / "report.jsonl"))
    assert found.exit_code == 0
    assert list(found.lines()) == ["no difference"]


def test_the_command_prints_text_and_json(reports):
    a, b = map(str, reports)
    text = CliRunner().invoke(main, ["diff", a, b])
    assert text.exit_code == 1
    assert "new failures (1):\n  sp: pass -> fail" in text.output
    back = CliRunner().invoke(main, ["diff", b, a, "--json"])
    assert json.loads(back.output)["fixed"] == ["sp: fail -> pass"]


def without(report, folder, operation, verdict=None):
    """A copy of a report from which an operation is gone, or in which it has another verdict."""
    lines = [json.loads(line) for line in (report / "report.jsonl").read_text().splitlines()]
    if verdict is None:
        lines = [one for one in lines if operation not in (one.get("operation"), one.get("case", "").split(":")[0])]
    else:
        lines = [one | {"verdict": verdict} if one.get("operation") == operation else one for one in lines]
    folder.mkdir()
    (folder / "report.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


@pytest.mark.parametrize(("operation", "was"), [("lcg", "fail"), ("sp", "pass")])
@pytest.mark.parametrize(("verdict", "words"), [(None, "not judged"), ("skip", "skip")])
def test_an_operation_that_is_not_judged_any_more_is_told(reports, tmp_path, operation, was, verdict, words):
    after = without(reports[0], tmp_path / "after", operation, verdict)
    found = difference(read(reports[0]), read(after))
    assert found.lost == (f"{operation}: {was} -> {words}",)
    assert (found.exit_code, found.broken, found.fixed, found.changed) == (1, (), (), ())
    told = CliRunner().invoke(main, ["diff", str(reports[0]), str(after)])
    assert told.exit_code == 1
    assert f"no longer judged (1):\n  {operation}: {was} -> {words}\n" in told.output
    assert "no difference" not in told.output


def test_an_operation_that_was_not_judged_is_not_lost(reports, tmp_path):
    before = without(reports[1], tmp_path / "before", "lcg", "skip")
    assert difference(read(before), read(without(reports[1], tmp_path / "after", "lcg"))).lost == ()
    back = difference(read(before), read(reports[1]))
    assert (back.lost, back.changed, back.exit_code) == ((), ("lcg: skip -> pass",), 0)


@pytest.mark.parametrize("text", ["", "{", "[]\n", '{"format": "other"}\n', '{"a": 1}\n', "\x00", '{"kind": 1}'])
def test_what_is_no_report_is_wrong_usage(tmp_path, text):
    (tmp_path / "report.jsonl").write_text(text)
    with pytest.raises(UsageError):
        read(tmp_path)
    result = CliRunner().invoke(main, ["diff", str(tmp_path), str(tmp_path / "none")])
    assert result.exit_code == 2


GOOD = {"kind": "report", "format": "efcp-ref report 1", "target": "mine.py", "seed": 0, "cases": 4}
OPERATION = {"kind": "operation", "operation": "sp", "verdict": "fail", "passed": 1, "failed": 1, "inconclusive": {},
             "errors": {}, "note": "", "seconds": 1.0, "tiers": {"T2": {"largest": 2.0}}}  # fmt: skip
CASE = {"kind": "case", "case": "sp:0:1:float64", "verdict": "fail"}


def written(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("number", "lines"),
    [
        (1, [OPERATION]), (2, [GOOD, GOOD]), (1, [{**GOOD, "cases": "4"}]), (1, [{**GOOD, "seed": -1}]),
        (2, [GOOD, {**OPERATION, "verdict": "perhaps"}]), (2, [GOOD, {**OPERATION, "tiers": []}]),
        (2, [GOOD, {**OPERATION, "tiers": {"T2": {"largest": "x"}}}]), (2, [GOOD, {**OPERATION, "seconds": None}]),
        (2, [GOOD, {**OPERATION, "errors": {"raised": "many"}}]), (2, [GOOD, {"kind": "operation"}]),
        (2, [GOOD, {**CASE, "case": "sp:0"}]), (2, [GOOD, {**CASE, "case": "sp:0:x:float64"}]), (2, [GOOD, [1]]),
    ],
)  # fmt: skip
def test_the_line_that_is_wrong_is_named(tmp_path, number, lines):
    path = written(tmp_path / "report.jsonl", *lines)
    with pytest.raises(UsageError, match=rf"not a report of efcp-ref \(line {number}: "):
        read(path)
    ran = CliRunner().invoke(main, ["diff", str(path), str(path)])
    assert ran.exit_code == 2
    assert "Traceback" not in ran.output


def test_no_control_character_of_a_report_reaches_the_terminal(tmp_path):
    bad = {**OPERATION, "operation": "\x1b[2Jsp\u202e"}
    a = written(tmp_path / "a", GOOD)
    b = written(tmp_path / "b", {**GOOD, "target": "\x1b]0;x\x07"}, bad)
    text = "\n".join(difference(read(a), read(b)).lines())
    assert "?[2Jsp?: not judged -> fail" in text
    assert all(c.isprintable() or c == "\n" for c in text)


def test_a_line_of_many_megabytes_and_a_pipe_are_refused(tmp_path):
    (tmp_path / "report.jsonl").write_bytes(b'"' + b"x" * (1 << 25))
    with pytest.raises(UsageError, match="at most"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for name in ("/dev/null", tmp_path / "pipe"):
        with pytest.raises(UsageError, match="no plain file"):
            read(name)
