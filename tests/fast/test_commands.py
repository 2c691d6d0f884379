"""``efcp-ref bench`` and ``efcp-ref check --large``."""

from click.testing import CliRunner

from efcp_ref.cli import main


def test_bench_names_its_figures_where_one_is_unknown(capfd):
    assert CliRunner().invoke(main, ["bench", "nothing"]).exit_code == 2
    said = capfd.readouterr().err
    assert all(name in said for name in ("products", "top_k", "step_bert"))


def test_large_judges_a_target():
    done = CliRunner().invoke(main, ["check", "efcp_ref.fast", "--large", "-o", "power_compress", "--json"])
    assert done.exit_code == 0
    assert '"verdict": "pass"' in done.output


def test_large_needs_a_target():
    done = CliRunner().invoke(main, ["check", "--command", "true", "--large"])
    assert done.exit_code == 2
    assert "--large needs a TARGET" in done.output
