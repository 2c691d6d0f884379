"""The page on certified verdicts and replay says what was measured, and its code runs."""

import importlib.util
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from efcp_ref.oracle import replay

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("certify_page", ROOT / "benchmarks" / "certify_page.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_figures_are_those_of_the_measurement(module):
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.page(text) == text, "python benchmarks/certify_page.py"
    assert text.count("| --- | ---: |") == 2


def test_what_was_measured_is_what_is_promised(module):
    certify, run = module.results("certify"), module.results("replay")
    whole = certify["all"]
    assert len(certify["operations"]) == 23
    assert whole["verdicts"] == ["pass"]
    assert (whole["overturned"], whole["missing"]) == (0, {})
    assert whole["largest"] <= 0.1
    assert certify["default check"]["exit code"] == 0
    assert (run["run"]["steps"], run["run"]["verdict"], run["run"]["failed"]) == (1000, "pass", 0)
    hit = run["injected"]
    assert hit["visible"] == hit["located at their step"] == 100
    assert (hit["missed"], hit["alarms for those"]) == ([], 0)
    assert run["command"] in module.PAGE.read_text()
    assert certify["command"] in module.PAGE.read_text()


def test_the_picture_carries_the_words_of_the_page(module):
    root = ET.parse(ROOT / "docs" / "assets" / "replay.svg").getroot()
    assert root.get("aria-label") == module.results("replay")["run"]["alt"]


def test_the_three_lines_of_the_page_dump_a_run(module, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", module.PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (replay.replay("run.efcp").verdict, replay.replay("run.efcp").judged) == ("pass", 5)


def test_every_test_that_is_named_exists(module):
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", module.PAGE.read_text(encoding="utf-8")))
    assert named
    assert [name for name in sorted(named) if f"def {name}(" not in sources] == []
