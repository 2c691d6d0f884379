"""`efcp-ref reproduce`: lists, computes, draws, the same numbers and the same bytes on a second run."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from efcp_ref.cli import main
from efcp_ref.reproduce import again_file, items, reproduce, text


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


def test_a_figure_takes_no_file_away(tmp_path, monkeypatch):
    """Refused before anything is computed."""
    from efcp_ref.claims.core import CLAIMS

    mine = tmp_path / "memory.svg"
    mine.write_text("mine")
    assert "memory" in [item.name for item in items()]  # fills CLAIMS
    claim = CLAIMS["memory"]
    monkeypatch.setitem(CLAIMS, "memory", replace(claim, measure=lambda seeds: pytest.fail("computed")))
    told = called("memory", "--out", str(tmp_path))
    assert told.exit_code == 2
    assert "is not overwritten" in told.output
    with pytest.raises(FileExistsError, match="name another folder"):
        reproduce("memory", tmp_path)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("inside", ["", "x", "x/y"])
def test_a_file_is_no_folder_for_figures(inside, tmp_path, monkeypatch):
    """Refused in one line before anything is computed."""
    from efcp_ref.claims.core import CLAIMS

    (mine := tmp_path / "mine.py").write_text("mine")
    assert "table-12" in [item.name for item in items()]  # fills CLAIMS
    claim = CLAIMS["table-12"]
    monkeypatch.setitem(CLAIMS, "table-12", replace(claim, measure=lambda seeds: pytest.fail("computed")))
    told = called("table-12", "--out", str(mine / inside))
    assert told.exit_code == 2
    assert "mine.py" in told.output
    assert "Error: " in told.output.splitlines()[-1]
    assert (mine.read_text(), list(tmp_path.iterdir())) == ("mine", [mine])


@pytest.mark.parametrize("name", ["sparse-ggt", "batch-size"])  # the second needs the runs that choose the rates
def test_again_trains_what_the_claim_needs_and_no_more(name, tmp_path, monkeypatch):
    """Training is replaced by a look into the cache; the slow test below trains."""
    from efcp_ref.claims import heavy, trained
    from efcp_ref.claims.core import CLAIMS

    cached, trainings = heavy.read(), []

    def looked_up(setting, seed):
        trainings.append((setting.key, seed))
        row = cached[setting.key, seed]
        return {k: v for k, v in row.items() if k not in ("key", "seed", "group", "name")}

    monkeypatch.setattr(heavy, "train", looked_up)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = []
    assert text(reproduce(name, again=True, say=said.append)) == text(reproduce(name))
    assert str(again_file()) in said[0]
    needed = trained.needed(CLAIMS[name])
    assert len(trainings) == len(set(trainings))
    tuning = {"batch-size": "tuning"}.get(name)
    wanted = {key for key, row in cached.items() if row["name"] in needed or row["group"] == tuning}
    assert set(trainings) == wanted
    reproduce(name, again=True)  # resumed: nothing is left to train
    assert len(trainings) == len(wanted)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_again_gives_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert text(reproduce("sparse-ggt", again=True)) == text(reproduce("sparse-ggt"))


def test_without_a_folder_nothing_is_drawn():
    assert reproduce("table-12").figure is None
