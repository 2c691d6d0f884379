"""`efcp-ref reproduce`: lists, computes, draws, the same numbers and the same bytes on a second run."""

import json

import pytest
from click.testing import CliRunner

from efcp_ref.cli import main
from efcp_ref.reproduce import items, reproduce, text


def called(*arguments):
    return CliRunner().invoke(main, ["reproduce", *arguments])


def test_the_list_names_everything():
    result = called("--list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == [item.name for item in items()]
    assert json.loads(called("--list", "--json").output)[0]["name"] == items()[0].name


def test_a_table_comes_out_as_text_and_as_json():
    result = called("table-12")
    assert result.exit_code == 0
    assert "rank 16" in result.output
    assert "47.72" in result.output
    assert json.loads(called("table-12", "--json").output)["verdict"] == "holds"


def test_an_unknown_name_is_wrong_usage():
    result = called("table-13")
    assert result.exit_code == 2
    assert "did you mean table-12" in result.output
    with pytest.raises(KeyError, match="nothing is called 'x'"):
        reproduce("x")


@pytest.mark.parametrize("name", ["lemma-k1", "sign-counterexample", "sparse-ggt", "memory"])
def test_a_second_run_gives_the_same_numbers_and_the_same_figure(name, tmp_path):
    pytest.importorskip("matplotlib")
    first, second = (reproduce(name, tmp_path / folder) for folder in "ab")
    assert text(first._replace(figure=None)) == text(second._replace(figure=None))
    assert first.figure.read_bytes() == second.figure.read_bytes()


def test_without_a_folder_nothing_is_drawn():
    assert reproduce("table-12").figure is None
