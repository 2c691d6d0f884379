"""The pytest plugin, run as its users run it: in a pytest of its own, alone and with workers."""

import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from tests.oracle.helpers import wrong

PLUGIN = "efcp_ref.oracle.pytest_plugin"


@pytest.fixture
def run(tmp_path):
    """Run pytest in an empty folder; return what it printed and the outcome of every test."""
    wrong(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # whatever lies above is not theirs

    def go(*arguments):
        report = tmp_path / "junit.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", f"--junitxml={report}"]
        said = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        found = {}
        for case in ET.parse(report).iter("testcase") if report.exists() else ():
            kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
            found[case.get("name")] = kinds[0] if kinds else "passed"
        return said.returncode, said.stdout + said.stderr, found

    return go


def test_one_test_per_operation_and_tier(run):
    code, text, found = run("--efcp-target", "wrong.py", "--efcp-cases", "6")
    assert code == 1
    assert sorted(found) == sorted(f"{o}[{t}]" for o in ("sp", "lcg", "top_k") for t in ("T0", "T1", "T2", "T3"))
    assert {found[f"sp[{tier}]"] for tier in ("T0", "T1", "T2")} == {"passed"}
    assert "failure" in {found["lcg[T1]"], found["lcg[T2]"]}
    assert found["top_k[T0]"] == "failure"  # it raises
    assert found["top_k[T2]"] == "skipped"  # Top-k has no tolerance
    for words in ("Algorithm 3, line 20", "reproduce  efcp-ref check wrong.py --operation lcg", "KeyError"):
        assert words in text
    assert "runtest" not in text  # the oracle's words, no traceback of the plugin


def test_xfail_lists_from_a_file_and_from_the_settings(run, tmp_path):
    (tmp_path / "known.txt").write_text("# known\nlcg  # ticket 7\n\ntop_k:T0\n")
    code, text, found = run("--efcp-target", "wrong.py", "--efcp-cases", "4", "--efcp-xfail", "known.txt")
    assert code == 0, text
    assert set(found.values()) == {"passed", "skipped"}  # JUnit calls an expected failure skipped
    assert "xfailed" in text
    (tmp_path / "pytest.ini").write_text("[pytest]\nefcp_target = wrong.py\nefcp_xfail =\n  lcg\n  top_k\n")
    assert run("--efcp-cases", "2")[0] == 0
    (tmp_path / "known.txt").write_text("lgc\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    code, text, _ = run("--efcp-target", "wrong.py", "--efcp-xfail", "known.txt")
    assert code == 4
    assert "'lgc' is no operation" in text


def test_workers_judge_every_operation_once_and_agree(run, tmp_path):
    counter = tmp_path / "calls"
    source = (tmp_path / "wrong.py").read_text()
    (tmp_path / "wrong.py").write_text(
        source.replace("    return (values", f"    open({str(counter)!r}, 'a').write('x')\n    return (values")
    )
    alone = run("--efcp-target", "wrong.py", "--efcp-cases", "3", "--efcp-operation", "sp")
    calls = len(counter.read_text())
    counter.unlink()
    spread = run("--efcp-target", "wrong.py", "--efcp-cases", "3", "--efcp-operation", "sp", "-n", "2")
    assert alone[0] == spread[0] == 0, spread[1]
    assert alone[2] == spread[2]
    assert len(counter.read_text()) == calls == 6


def test_tests_are_selected_by_name_and_stand_beside_the_users_own(run, tmp_path):
    (tmp_path / "test_mine.py").write_text("def test_sp_is_mine():\n    pass\n")
    code, _, found = run("--efcp-target", "wrong.py", "--efcp-cases", "2", "-k", "sp")
    assert code == 0
    assert {"test_sp_is_mine", "sp[T0]"} <= set(found)
    assert not [name for name in found if "lcg" in name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--efcp-target", "nowhere.py"), "no such target"),
        (("--efcp-target", "wrong.py", "--efcp-operation", "spp"), "did you mean sp"),
        (("--efcp-target", "wrong.py", "--efcp-operation", "wsm"), "does not offer wsm"),
        (("--efcp-target", "wrong.py", "--efcp-command", "./a"), "name one of"),
        (("--efcp-target", "wrong.py", "--efcp-xfail", "none.txt"), "No such file"),
    ],
)
def test_wrong_usage_is_told(run, arguments, words):
    code, text, _ = run(*arguments)
    assert code == 4
    assert words in text


def test_a_target_that_cannot_be_imported_is_a_failing_test(run, tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    code, text, _ = run("--efcp-target", "broken.py", "--efcp-operation", "sp")
    assert code == 1
    assert "ZeroDivisionError" in text


def test_the_plugin_imports_nothing_heavy_and_does_nothing_unasked(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_light.py").write_text(
        "import sys\ndef test_light():\n"
        "    assert not {'numpy', 'scipy', 'hypothesis', 'rich', 'click'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, "-p", "no:cacheprovider"]
    quiet = ["-p", "no:hypothesispytest", "-p", "no:jaxtyping"]
    said = subprocess.run([*command, *quiet], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
    assert "1 passed" in said.stdout
