"""Every way in which a target can misbehave gets its verdict, and what it does right is still judged."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from efcp_ref.oracle import criteria, targets
from efcp_ref.oracle.core import Case, Declared
from efcp_ref.oracle.judge import check_target
from efcp_ref.oracle.results import visible
from efcp_ref.oracle.targets import BrokenTarget, Child, Local, Outcome, Target, TimedOut, UsageError, declared
from efcp_ref.oracle.terminal import as_json, text

HERE = Path(__file__).parent.parent / "targets_for_tests"


def target(name):
    return str(HERE / f"{name}.py")


def sp_case(**more):
    arguments = {
        "indices": np.array([[0, 2], [3, 1]], np.int32), "values": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "g": np.arange(4.0), "block_size": 4, "density": 0.5,
    }  # fmt: skip
    return Case("sp", "generic", "by hand", 0, 0, {**arguments, **more})


FAULTS = {  # file: verdict of sp, kind of error or stage that fails, words that must be said
    "raises": ("error", "raised", "raised ValueError: no idea"),
    "hangs": ("error", "timeout", "timeout after 0.5 s"),
    "aborts": ("error", "died", "was killed by signal 6 (SIGABRT)"),
    "exits": ("error", "exit", "called sys.exit(3)"),
    "exits_at_once": ("error", "died", "ended the process with exit code 5"),
    "kills_itself": ("error", "died", "was killed by signal 9 (SIGKILL)"),
    "closes_files": ("error", "died", ""),
    "writes_descriptors": ("error", "died", "wrote into the oracle's pipe"),
    "memory": ("error", "memory", "limit 2 GiB"),
    "returns_none": ("error", "result shape", "expected the array omega"),
    "wrong_type": ("error", "result shape", "str 'omega'"),
    "objects": ("error", "result shape", "dtype object"),
    "mutates": ("fail", "inputs", "g was modified in place"),
    "wrong_shape": ("fail", "omega", "has shape"),
    "complex_numbers": ("fail", "omega", "complex"),
    "nans": ("fail", "omega", "nan"),
    "view_of_input": ("fail", "omega", ""),
    "prints": ("pass", "", ""),
    "big_endian": ("pass", "", ""),
    "returns_list": ("pass", "", ""),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_gets_its_verdict_and_the_others_are_still_judged(name):
    verdict, what, words = FAULTS[name]
    slow = 0.5 if name == "hangs" else 20.0
    report = check_target(target(name), cases=4, timeout=slow, memory=2.0, shrink_seconds=0)
    sp = report["sp"]
    assert report["top_k"].verdict == "pass"
    assert sp.verdict == verdict
    assert report.exit_code == {"fail": 1, "error": 3, "pass": 0}[verdict]
    if verdict == "pass":
        assert sp.judged == sp.passed + sum(sp.inconclusive.values()) == 8
        return
    shown = sp.failures[0].verdict
    assert words in (shown.reason or shown.first.reason)
    assert what in sp.errors if verdict == "error" else shown.first.stage == what


def test_a_target_that_hangs_is_given_up_soon():
    start = time.monotonic()
    report = check_target(target("hangs"), ["sp"], cases=40, timeout=0.2)
    assert report["sp"].errors == {"timeout": 2}
    assert "gave up after 2 timeouts, 78 cases not judged" in report["sp"].note
    assert time.monotonic() - start < 10


def test_what_was_printed_is_kept_for_the_report_and_disturbs_nothing():
    opened = Target(target("raises"))
    try:
        outcome = opened.run(sp_case())
        assert outcome.kind == "ValueError"
        assert "raises.py" in outcome.traceback
        assert "worker.py" not in outcome.traceback
    finally:
        opened.close()
    aborted = check_target(target("aborts"), ["sp"], cases=1, shrink_seconds=0)
    assert "Fatal Python error: Aborted" in aborted["sp"].failures[0].output


def test_what_a_terminal_obeys_is_written_out():
    report = check_target(target("escapes"), ["sp"], cases=1, shrink_seconds=0)
    failure = report["sp"].failures[0]
    assert failure.verdict.reason == r"raised ValueError: red \x1b[31m next\x9b2J \x07"
    assert failure.output == r"printed \x1b[2J \u202e"
    assert '", line 6, in sp\n' in failure.traceback  # its line breaks stay
    assert "ValueError: red \\x1b[31m\nnext\\x9b2J \\x07" in failure.traceback
    assert all(c.isprintable() or c == "\n" for c in text(report) + json.dumps(as_json(report), ensure_ascii=False))


def test_what_a_terminal_obeys_is_written_out_where_the_import_fails(tmp_path):
    (file := tmp_path / "broken.py").write_text("raise ValueError('\\x1b[2J\\u202e')\n")
    broken = check_target(str(file)).broken
    assert r"raised ValueError: \x1b[2J\u202e" in broken
    assert all(c.isprintable() or c == "\n" for c in broken)


@pytest.mark.parametrize("words", ["", "plain words", "é ½ ∑ 一", r"\x1b as written"])
def test_words_that_a_terminal_shows_stay_as_they_are(words):
    assert Outcome(reason=words).reason == words
    assert visible(words) == words
    assert visible(f"\t{words}\r\n", lines=True) == f"\t{words}\n"
    assert visible(visible("\x1b\ud800 \x00")) == r"\x1b\ud800 \x00"  # half of a pair, which no file can hold, too


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("import_error", "nothing_of_this_name"), ("endless_import", "longer than 0.7 s"),
        ("import_exits", "sys.exit(0)"),
    ],
)  # fmt: skip
def test_a_target_that_cannot_be_imported_is_an_error(name, words):
    report = check_target(target(name), start_timeout=0.7 if name == "endless_import" else 60)
    assert words in report.broken
    assert report.exit_code == 3


def test_a_syntax_error_is_an_error(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("def sp(:\n")
    report = check_target(str(file))
    assert "SyntaxError" in report.broken
    assert report.exit_code == 3


@pytest.mark.parametrize(
    "name", [".", "no_such_file.py", "no.such.module", "json:nothing", target("good") + ":nothing"]
)
def test_no_such_target_is_wrong_usage(name):
    with pytest.raises(UsageError, match="no such target"):
        check_target(name)


def test_a_module_under_a_contract_name_is_not_taken_for_the_operation():
    report = check_target(target("offers_nothing"))
    assert report.exit_code == 3
    assert any("sp is module" in note for note in report.notes)
    assert any("topk, did you mean top_k" in note for note in report.notes)


@pytest.mark.parametrize("inside", ["Keywords", "Static", "table"])
def test_objects_classes_and_mappings_are_targets(inside):
    report = check_target(f"{target('keywords')}:{inside}", cases=4)
    assert report.exit_code == 0
    assert {"Keywords": "lcg", "Static": "top_k", "table": "sp"}[inside] in {
        o.operation for o in report.operations if o.verdict == "pass"
    }


def test_optional_stages_may_be_none():
    opened = Target(target("stages"))
    try:
        case = Case("mfac_direction", "generic", "", 0, 0, {"G": np.eye(2), "lam": 1.0, "x": np.ones(2)})
        assert sorted(opened.run(case).results) == ["S", "h", "u"]
    finally:
        opened.close()


def test_buffers_of_an_optimizer_are_copied_at_every_step():
    opened = Target(target("optimizer"))
    gradients = np.array([[3.0, 1.0], [1.0, 1.0]])
    try:
        outcome = opened.run(Case("topk_sgd", "generic", "", 0, 0, {"d": 2, "k": 1, "gradients": gradients}))
    finally:
        opened.close()
    assert outcome.results["u"].tolist() == [[3.0, 0.0], [0.0, 2.0]]
    assert [s["xi"].tolist() for s in outcome.results["states"]] == [[0.0, 1.0], [1.0, 0.0]]
    assert [int(s["t"]) for s in outcome.results["states"]] == [1, 2]


def test_read_only_and_strided_arrays_arrive_so():
    seen = []

    def sp(indices, values, g):
        seen.append((g.flags.writeable, g.flags.c_contiguous, values.flags.c_contiguous))
        return (values * g[indices]).sum(1)

    local = Local({"sp": sp})
    case = sp_case()
    local.run(case)
    local.run(Case(*[getattr(case, n) for n in ("operation", "family", "label", "seed", "index", "arguments")],
                   flags=frozenset({"readonly", "strided"})))  # fmt: skip
    assert seen == [(True, True, True), (False, False, False)]


def test_torch_tensors_in_and_out():
    pytest.importorskip("torch")
    report = check_target(target("torch_target"), cases=4)
    assert report.exit_code == 0
    assert report["sp"].judged == 4  # float32 alone


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"SOLVER": "magic"}, "factorisation"), ({"NAN": "maybe"}, "largest"), ({"DTYPES": ["float16"]}, "float64"),
        ({"ARITHMETIC": {"depht": 3}}, "depth"), ({"ARITHMETIC": {"depth": 0}}, "at least 1"),
        ({"ARITHMETIC": {"eigensolver": "syev"}}, "mrrr"), ({"ARITHMETIC": "float32"}, "dict"),
        ({"READINGS": {"R99": "x"}}, "R1..R42"),
        ({"ARRAYS": "tensorflow"}, "torch"),
        ({"READINGS": {"R4": 1}}, "text"), ({"READINGS": {"R34": "per tensor"}}, "'2,3'"),
        ({"READINGS": {"R4": "storedx"}}, r"READINGS\['R4'\] = 'storedx' .* must be 'stored' or 'm' or 'window'$"),
        ({"READINGS": {"R4": "stored", "R24": "zz"}}, r"READINGS\['R24'\] = 'zz' .* 'ridge' or 'none' or the number"),
        ({"READINGS": {"R24": "nan"}}, "'1e-6'"), ({"READINGS": {"R24": "-1"}}, "'1e-6'"),
        ({"READINGS": {"R29": "eps"}}, "must be 'unmoved' or the number that is added, such as '0' or '1e-10'"),
        ({"READINGS": {"R29": "inf"}}, "'1e-10'"), ({"READINGS": {"R29": ""}}, "'1e-10'"),
        ({"READINGS": {"R34": "0"}}, "'2,3'"), ({"READINGS": {"R34": "²"}}, "'2,3'"),
        ({"READINGS": {"R34": "1" * 5000}}, "'2,3'"),
        ({"READINGS": {"R7": "x"}}, r"READINGS\['R7'\] .* no criterion asks for it, only for R4, R24, R29, R34"),
        ({"READINGS": {"R04": "m"}}, "R1..R42"), ({"READINGS": {4: "m"}}, "R1..R42"),
        ({"ORTHOGONALISATION": "qr"}, "householder"),
    ],
)  # fmt: skip
def test_wrong_declarations_are_wrong_usage(raw, words):
    with pytest.raises(UsageError, match=words):
        declared(raw)


def test_a_wrong_declaration_in_a_file_is_wrong_usage():
    with pytest.raises(UsageError, match="SOLVER = 'magic'"):
        check_target(target("wrong_declaration"))


def test_declarations_are_read():
    assert declared({}) == Declared()
    assert declared({"DTYPES": "float32", "READINGS": {"R4": "stored"}}).dtypes == ("float32",)
    assert declared({"ARITHMETIC": {"eigensolver": "mrrr"}}).arithmetic == {"eigensolver": "mrrr"}
    assert declared({"READINGS": {"R34": "2, 3"}}).readings == {"R34": "2, 3"}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("R4", ("stored", "m", "window")), ("R24", ("ridge", "none", "0", "1e-5")), ("R34", ("whole vector", "4")),
        ("R29", ("unmoved", "0", "1e-10")),
    ],
)  # fmt: skip
def test_readings_that_a_criterion_understands_are_taken(key, values):
    for value in values:
        assert declared({"READINGS": {key: value}}).readings == {key: value}


def test_the_readings_that_can_be_declared_are_those_that_the_criteria_ask_for():
    sources = (Path(criteria.__file__).parent).rglob("*.py")
    asked = {key for file in sources for key in re.findall(r'readings\.get\("(R\d+)"', file.read_text())}
    assert asked == set(targets._READINGS)


def test_killing_the_child_takes_its_process_group():
    child = Child(target("good"), 0)
    child.ask(b"", 30)
    with pytest.raises(TimedOut):
        child.ask(b"", 0.05)
    child.kill()
    assert child.process.returncode == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(child.process.pid, 0)


def test_a_call_costs_about_a_millisecond():
    opened = Target(target("good"))
    try:
        opened.run(sp_case())
        times = []
        for _ in range(100):
            start = time.perf_counter()
            opened.run(sp_case())
            times.append(time.perf_counter() - start)
    finally:
        opened.close()
    assert min(times) < 0.002


def test_a_target_that_breaks_on_its_second_import_is_an_error(tmp_path):
    file = tmp_path / "once.py"
    file.write_text(
        "import os, pathlib\nmark = pathlib.Path(__file__).with_suffix('.mark')\n"
        "assert not mark.exists(), 'only once'\nmark.touch()\n\n\ndef sp(*a):\n    os.abort()\n"
    )
    report = check_target(str(file), ["sp"], cases=3, shrink_seconds=0)
    assert report["sp"].verdict == "error"
    with pytest.raises(BrokenTarget, match="only once"):
        Target(str(file))


def test_a_notebook_hands_on_the_folder_of_its_packages(monkeypatch):
    """A kernel's script stands in site-packages, which the child needs; a plain script's own folder is left out."""
    monkeypatch.setattr(sys, "argv", ["/venv/site-packages/ipykernel_launcher.py"])
    monkeypatch.setattr(sys, "path", ["/usr/lib/python", "", "/venv/site-packages"])
    assert targets._import_path()[:2] == ["/usr/lib/python", "/venv/site-packages"]
    monkeypatch.setattr(sys, "argv", ["/home/me/script.py"])
    monkeypatch.setattr(sys, "path", ["/home/me", "/venv/site-packages"])
    assert "/home/me" not in targets._import_path()


@pytest.mark.parametrize("limits", [{"timeout": float("nan")}, {"timeout": float("inf")}, {"timeout": 0.0},
                                    {"memory": float("nan")}, {"memory": 1e300}, {"memory": -1.0}])  # fmt: skip
def test_a_limit_that_no_timer_holds_is_refused_and_not_the_targets_fault(limits):
    with pytest.raises(UsageError, match="must be in"):
        Target(target("good"), **limits)
