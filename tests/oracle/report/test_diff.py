"""What changed between two reports."""

import json

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


@pytest.mark.parametrize("text", ["", "{", "[]\n", '{"format": "other"}\n', '{"a": 1}\n', "\x00", '{"kind": 1}'])
def test_what_is_no_report_is_wrong_usage(tmp_path, text):
    (tmp_path / "report.jsonl").write_text(text)
    with pytest.raises(UsageError):
        read(tmp_path)
    result = CliRunner().invoke(main, ["diff", str(tmp_path), str(tmp_path / "none")])
    assert result.exit_code == 2
