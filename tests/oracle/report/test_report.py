"""The four files of a report: what stands in them, that nothing hostile gets out of its place, and how they read."""

import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from efcp_ref.oracle import terminal
from efcp_ref.oracle.chunks import Door
from efcp_ref.oracle.judge import Report, judge
from efcp_ref.oracle.report import Stats, evidence_of, svg, write
from efcp_ref.oracle.report.collect import STEP, bar_of
from efcp_ref.oracle.report.files import FILES, ours
from efcp_ref.oracle.report.machines import junit, markdown
from efcp_ref.oracle.report.mathtext import math_html
from efcp_ref.oracle.report.page import DARK, LIGHT, page
from efcp_ref.oracle.report.run import check
from efcp_ref.oracle.targets import Local, UsageError
from efcp_ref.paper.printed import lines as printed
from tests.oracle.helpers import lines, wrong

VOID = {"meta", "br", "hr", "img", "input", "link", "rect", "line", "path"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report with a pass, a failure, an error and operations that are not offered."""
    here = tmp_path_factory.mktemp("report")
    check(Door(wrong(here)), cases=12, folder=here / "out", shrink_seconds=2)
    return here / "out"


class Page(HTMLParser):
    """Reads a page and holds every tag to its closing one."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if tag != "rect":
            assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_all_four_files_are_there_and_the_lines_say_what_the_report_says(folder):
    assert {"report.jsonl", "junit.xml", "summary.md", "index.html"} <= {p.name for p in folder.iterdir()}
    kinds = {}
    for line in lines(folder):
        kinds.setdefault(line["kind"], []).append(line)
    assert kinds["report"][0]["exit_code"] == 1
    verdicts = {o["operation"]: o for o in kinds["operation"]}
    assert [verdicts[n]["verdict"] for n in ("sp", "lcg", "top_k", "wsm")] == ["pass", "fail", "error", "skip"]
    assert sum(verdicts["sp"]["tiers"]["T0"]["verdicts"].values()) == 24
    assert len([c for c in kinds["case"] if c["verdict"] == "fail"]) == verdicts["lcg"]["failed"]
    assert sum(s["blamed"] for s in verdicts["lcg"]["tiers"].values()) == verdicts["lcg"]["failed"]
    assert {f["operation"] for f in kinds["failure"]} == {"lcg", "top_k"}


def test_junit_has_one_test_per_operation_and_tier(folder):
    root = ET.parse(folder / "junit.xml").getroot()
    suites = {s.get("name"): s for s in root}
    assert [c.get("name") for c in suites["lcg"]][:3] == ["T0", "T1", "T2"]
    assert suites["lcg"].get("failures") != "0"
    assert "Algorithm 3, line 20" in "".join(suites["lcg"].itertext())
    assert suites["top_k"].find(".//error") is not None
    assert suites["wsm"].find(".//skipped") is not None
    for count, kind in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(root.get(count)) == len(root.findall(f".//{kind}"))


def test_the_summary_has_a_table_and_folded_failures(folder):
    text = (folder / "summary.md").read_text()
    assert "| `lcg` | ❌ fail |" in text
    assert text.count("<details>") == text.count("</details>") == 2
    assert "reproduce  efcp-ref check" in text


def test_the_page_shows_everything_that_finds_a_bug(folder):
    text = (folder / "index.html").read_text()
    for words in (
        "Algorithm 3, line 20", "agrees with", "<h2>Ratios</h2>", "expected</th>", "got</th>", "ratio</th>",
        "3:20 (blamed)", "efcp-ref check", "lcg(indices, values, c, d", "prefers-color-scheme: dark",
    ):  # fmt: skip
        assert words in text
    smallest = "The smallest case found that still fails" in text or "<h4>The case</h4>" in text
    assert smallest


def test_the_page_is_whole_and_needs_nothing_from_outside(folder):
    text = (folder / "index.html").read_text()
    seen = Page(text)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", text)
    assert "url(" not in text
    assert "@import" not in text
    assert not seen.all("script")
    assert seen.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in seen.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))  # no level is left out
    assert all("scope" in attributes for attributes in seen.all("th"))
    assert all(a.get("role") == "img" and a.get("aria-label") for a in seen.all("svg"))
    ids = [a["id"] for _, a in seen.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in seen.all("a")} <= set(ids)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_the_contrast_of_text_is_at_least_4_5_and_of_bars_3(palette):
    text = ("text", "muted", "link", "pass", "fail", "error", "inconclusive", "skip")
    for name in text:
        assert contrast(palette[name], palette["back"]) >= 4.5, name
    assert min(contrast(palette["text"], palette[on]) for on in ("soft", "lit")) >= 4.5
    assert min(contrast(palette[bar], palette["back"]) for bar in ("blue", "orange")) >= 3


def test_nothing_of_a_hostile_target_becomes_markup():
    bad = "</style><script>alert(1)</script>]]>\x00\x1b[31m|`"

    def sp(indices, values, g):
        raise ValueError(bad)

    stats = Stats()
    target = Local({"sp": sp}, name=bad)
    report = judge(target, ["sp"], 2, seen=stats.add)
    text = page(report, stats, {})
    assert "<script" not in text
    assert "alert(1)" in text
    Page(text)
    ET.fromstring(junit(report, stats).encode())
    assert "<script" not in re.sub(r"```.*?```", "", markdown(report), flags=re.S).split("`", 2)[2]
    broken = Report(bad, broken=bad)
    Page(page(broken, Stats(), {}))
    assert "<script" not in page(broken, Stats(), {})
    ET.fromstring(junit(broken, Stats()).encode())


def test_the_arrays_of_the_blamed_check_are_found(tmp_path):
    def sp(indices, values, g):
        omega = (values * g[indices]).sum(1)
        omega[-1] += 1 + abs(omega[-1])
        return omega

    stats = Stats()
    target = Local({"sp": sp}, name="t")
    report = judge(target, ["sp"], 12, seen=stats.add, shrink_seconds=0)
    found = evidence_of(report, target)
    assert found
    for failure in report["sp"].failures:
        check_, seen = failure.verdict.first, found[id(failure)]
        assert seen.got[check_.at] == check_.got
        assert seen.expected[check_.at] == check_.expected
        assert seen.ratio[check_.at] == check_.ratio
        assert list(np.flatnonzero(seen.ratio > 1)) == [len(seen.got) - 1]
        assert [line.tag for line in seen.trace if line.blamed] == [check_.line]
    write(tmp_path, report, stats, found)
    assert 'class="first"' in (tmp_path / "index.html").read_text()


def test_every_printed_line_becomes_html_without_leftovers():
    for tag, line in printed().items():
        text = math_html(line.latex)
        assert "\\" not in text, tag
        assert "$" not in text, tag
        Page(text)


@pytest.mark.parametrize("ratio", [1e-9, 3e-4, 0.5, 1.0, 1.7, 999.0, 1e30])
def test_bars_hold_their_ratios(ratio):
    low = 10 ** (bar_of(ratio) * STEP)
    assert low <= max(min(ratio, 1e3), 1e-6) * (1 + 1e-12) < low * 10**STEP * (1 + 1e-12)
    assert (bar_of(ratio) >= 0) == (ratio >= 1)


def test_heat_maps_show_the_part_around_the_first_departure():
    values, ratio = np.arange(5000.0), np.zeros(5000)
    ratio[3000] = math.inf
    text = svg.heat(values, ratio, "value", "x")
    assert text.count("<title>") == 512
    assert "[3000] 3000.0" in text
    assert text.count('class="cross"') == text.count('class="first"') == 1
    assert svg.heat(np.array([np.nan]), np.array([np.inf]), "value", "nan").count("#000000") == 1


def test_text_and_json_of_the_terminal_are_unchanged_by_a_report(folder):
    head = lines(folder)[0]
    assert json.dumps(head)
    assert set(head) - {"kind", "format"} == set(terminal.as_json(Report("t"))) - {"operations"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_ours_stays(tmp_path, name):
    """It is found before a case is judged, and a report of ours beside it is replaced as before."""
    target = wrong(tmp_path)
    (tmp_path / name).write_text("precious")
    with pytest.raises(UsageError, match=f"{name} was not written by efcp-ref"):
        check(Door(target), ["sp"], 1, folder=tmp_path, shrink_seconds=0)
    assert (tmp_path / name).read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir() if path.name in FILES or path.suffix == ".new"] == [name]


def test_a_report_of_ours_is_replaced_that_of_a_campaign_by_a_campaign_alone(folder):
    ours(folder, campaign=True)
    with pytest.raises(UsageError, match="holds the report of a campaign"):
        ours(folder)
    (folder / "campaign.json").unlink()
    ours(folder)
