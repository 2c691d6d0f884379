"""Campaigns: the same verdicts whatever the workers, nothing lost or repeated after a kill, old failures first."""

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest

from efcp_ref.oracle import campaign, terminal
from efcp_ref.oracle.chunks import Chunk, Door, Finished, from_line, judge_chunk, split, to_line
from efcp_ref.oracle.judge import check_target, judge
from efcp_ref.oracle.pool import LostWorkers, locally, on_dask
from efcp_ref.oracle.record import Row
from efcp_ref.oracle.report.run import check
from efcp_ref.oracle.targets import Local, Target, UsageError
from tests.oracle.helpers import OPERATIONS, same, wrong


@pytest.fixture
def target(tmp_path):
    return wrong(tmp_path)


def rows_in(log: Path) -> list[Finished]:
    """Every whole line of a log."""
    found = [from_line(line) for line in log.read_bytes().splitlines(keepends=True)]
    return [done for done in found if done]


# --- chunks -------------------------------------------------------------------------------------------------------


def test_chunks_cover_every_case_once_and_do_not_depend_on_the_total():
    for cases in (1, 9, 10, 11, 57):
        chunks = list(split("sp", 0, cases))
        assert [i for c in chunks for i in range(c.start, c.stop)] == list(range(cases))
    assert list(split("sp", 0, 40))[:4] == list(split("sp", 0, 100))[:4]


def test_a_chunk_survives_its_line_bit_for_bit(target):
    with_target = Target(target)
    try:
        for operation in OPERATIONS:
            done = judge_chunk(with_target, Chunk(operation, 0, 0, 10))
            again = from_line(to_line(done))
            assert again is not None
            assert again.rows == done.rows
    finally:
        with_target.close()


def test_torn_and_damaged_lines_are_no_chunks():
    line = to_line(Finished(Chunk("sp", 0, 0, 10), ()))
    assert from_line(line) is not None
    for cut in range(len(line)):
        assert from_line(line[:cut]) is None
        assert from_line(line[:cut] + b"#" + line[cut + 1 :]) is None


# --- the same verdicts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [2, 3])
def test_the_verdicts_do_not_depend_on_the_number_of_processes(target, jobs):
    one, more = (
        terminal.as_json(check_target(target, cases=24, seed=3, jobs=n, shrink_seconds=0)) for n in (1, jobs)
    )
    assert same(more) == same(one)
    assert more["exit_code"] == 1


def test_rows_are_seen_in_the_order_of_their_cases(target):
    seen = []
    campaign.run(Door(target), ["sp", "lcg"], cases=25, jobs=2, shrink_seconds=0, seen=seen.append)
    for operation in ("sp", "lcg"):
        indices = [row.index for row in seen if row.operation == operation and row.dtype == "float32"]
        assert indices == list(range(25))


def test_an_operation_that_hangs_is_given_up_alike(tmp_path):
    path = tmp_path / "hangs.py"
    path.write_text("import time\ndef sp(indices, values, g):\n    time.sleep(60)\n")
    report = campaign.run(Door(str(path), timeout=0.2), cases=30, jobs=2, shrink_seconds=0)
    assert report["sp"].errors == {"timeout": 2}
    assert "gave up after 2 timeouts" in report["sp"].note


def test_a_worker_that_dies_is_replaced_and_its_chunk_judged_again(tmp_path):
    path = tmp_path / "kills_the_oracle.py"
    path.write_text(
        "import os, signal, pathlib\nmark = pathlib.Path(__file__).with_name('done')\n"
        "def sp(indices, values, g):\n"
        "    if not mark.exists():\n        mark.touch(); os.kill(os.getppid(), signal.SIGKILL)\n"
        "    return (values * g[indices]).sum(1)\n"
    )
    chunks = list(split("sp", 0, 20))
    finished = list(locally(Door(str(path)), chunks, 2))
    assert sorted(f.chunk.start for f in finished) == [0, 10]
    assert sum(f.lost for f in finished) == 1
    assert all(row.verdict == "pass" for f in finished for row in f.rows)


def test_workers_that_always_die_end_the_campaign(tmp_path):
    path = tmp_path / "always.py"
    path.write_text("import os, signal\ndef sp(*a):\n    os.kill(os.getppid(), signal.SIGKILL)\n")
    with pytest.raises(LostWorkers, match=r"3 workers of the oracle died on sp:0:0-10"):
        list(locally(Door(str(path)), split("sp", 0, 10), 1))


# --- resume -------------------------------------------------------------------------------------------------------


def start(target: str, folder: Path, cases: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "efcp_ref", "check", target, "--cases", str(cases), "--jobs", "2"]
    return subprocess.Popen(
        [*command, "--report", str(folder), "-o", "sp", "-o", "lcg"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, text=True,
    )  # fmt: skip


def kill_when_written(process: subprocess.Popen, log: Path, size: int) -> None:
    """Kill -9 as soon as the log is longer than ``size``."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if log.exists() and log.stat().st_size > size:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_campaign_that_is_killed_goes_on_without_losing_or_repeating_a_chunk(target, tmp_path):
    folder, cases = tmp_path / "report", 60
    log, size, sizes = folder / "chunks.log", 0, []
    for _ in range(3):
        kill_when_written(start(target, folder, cases), log, size)
        size = log.stat().st_size
        sizes.append(size)
        log.write_bytes(log.read_bytes() + b"0badc0de {torn")  # as if the kill had hit a write
    assert sizes == sorted(set(sizes))  # every session added to what was there
    done = start(target, folder, cases)
    assert done.wait(100) == 1
    assert "resumed:" in done.communicate()[0]
    chunks = Counter(finished.chunk.id for finished in rows_in(log))
    assert set(chunks.values()) == {1}
    assert len(chunks) == 2 * cases / 10
    whole = campaign.run(Door(target), ["sp", "lcg"], cases, jobs=1, shrink_seconds=0)
    report = json.loads((folder / "report.jsonl").read_text().splitlines()[1])
    (entry,) = [o for o in terminal.as_json(whole)["operations"] if o["operation"] == report["operation"]]
    assert {n: report[n] for n in ("passed", "failed", "worst")} == {n: entry[n] for n in ("passed", "failed", "worst")}


def test_an_unfinished_campaign_is_not_mixed_with_another(target, tmp_path):
    folder = tmp_path / "report"
    plan = campaign.Plan(Door(target), ("sp",), 20, 0)
    log = campaign.Log(folder, plan)
    log.add(Finished(Chunk("sp", 0, 0, 10), ()))
    with pytest.raises(UsageError, match="another campaign writes there"):
        campaign.Log(folder, plan)
    log.close()
    with pytest.raises(UsageError, match="another seed"):
        campaign.Log(folder, campaign.Plan(Door(target), ("sp",), 20, 1))
    more = campaign.Log(folder, campaign.Plan(Door(target), ("sp",), 500, 0))  # more cases are no other campaign
    assert more.resumed == 1
    more.close()
    Path(target).write_text(Path(target).read_text() + "# changed\n")
    with pytest.raises(UsageError, match=r"another code.*--fresh"):
        campaign.Log(folder, plan)
    fresh = campaign.Log(folder, plan, fresh=True)
    assert fresh.resumed == 0
    fresh.close()


def test_a_finished_campaign_is_replaced_by_one_of_the_same_target_alone(target, tmp_path):
    folder = tmp_path / "report"

    def log(target=target, operations=("sp", "lcg"), cases=20, seed=0, fresh=False):
        return campaign.Log(folder, campaign.Plan(Door(target), operations, cases, seed), fresh=fresh)

    first = log()
    first.add(Finished(Chunk("sp", 0, 0, 10), ()))
    first.finish()
    first.close()
    written = [(folder / name).read_bytes() for name in ("chunks.log", "campaign.json")]
    for change, words in (({"target": "efcp_ref"}, "another target"), ({"operations": ("lcg",)}, "another operations")):
        with pytest.raises(UsageError, match=f"finished campaign with {words}.*--fresh"):
            log(**change)
        assert [(folder / name).read_bytes() for name in ("chunks.log", "campaign.json")] == written
    Path(target).write_text(Path(target).read_text() + "# the mistake is repaired\n")
    more, fewer = {"operations": ("sp", "lcg", "top_k")}, {"operations": ("sp",), "fresh": True}
    for change in ({}, {"cases": 4, "seed": 1}, more, fewer):
        again = log(**change)
        assert again.resumed == 0
        again.finish()
        again.close()


def test_what_is_no_campaign_does_not_replace_the_report_of_one(target, tmp_path):
    folder = tmp_path / "report"
    check(Door(target), ["sp"], 3, folder=folder, jobs=1)
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="holds the report of a campaign"):
        check(Door(target), ["sp"], folder=folder, only=2)
    with pytest.raises(UsageError, match="finished campaign with another operations"):
        check(Door(target), ["lcg"], 3, folder=folder, jobs=1)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == kept


@pytest.mark.parametrize("head", [b"", b"{", b"[]", b'{"format": 1}', b"\xff", b'{"format": "x"}', b"null"])
def test_a_head_that_cannot_be_read_loses_no_chunk(target, tmp_path, head):
    folder, plan = tmp_path / "report", campaign.Plan(Door(target), ("sp",), 20, 0)
    log = campaign.Log(folder, plan)
    log.add(Finished(Chunk("sp", 0, 0, 10), ()))
    log.close()
    written = (folder / "chunks.log").read_bytes()
    (folder / "campaign.json").write_bytes(head)
    with pytest.raises(UsageError, match="--fresh"):
        campaign.Log(folder, plan)
    (folder / "campaign.json").unlink()
    with pytest.raises(UsageError, match=r"chunks.log without campaign.json; --fresh starts over"):
        campaign.Log(folder, plan)
    assert (folder / "chunks.log").read_bytes() == written
    campaign.Log(folder, plan, fresh=True).close()
    assert (folder / "chunks.log").read_bytes() == b""


def forged(**changes):
    """A line whose checksum is right and whose content is not."""
    whole = json.loads(to_line(Finished(Chunk("sp", 0, 0, 10), (Row("sp", 0, 0, "float64", "pass"),)))[9:])
    row = {**whole["rows"][0], **changes.pop("row", {})}
    chunk = {**whole["chunk"], **changes.pop("chunk", {})}
    data = json.dumps({**whole, "rows": [row], "chunk": chunk, **changes}).encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk": {"operation": "../x"}}, {"chunk": {"stop": 10**9}}, {"chunk": {"seed": -1}},
        {"chunk": {"start": "0"}}, {"row": {"i": 10}}, {"row": {"i": 1.5}}, {"row": {"v": "perhaps"}},
        {"row": {"t": "bfloat16"}},
        {"row": {"tiers": []}}, {"row": {"tiers": {"T9": ["pass", 0]}}}, {"row": {"why": 3}}, {"row": {"kept": 1}},
        {"row": {"v": "fail", "first": {"stage": "u", "tier": "T2", "line": "2:11"}}},
        {"row": {"first": {"stage": []}}}, {"row": {"first": 3}}, {"seconds": "nan"}, {"seconds": float("nan")},
        {"lost": -1}, {"rows": [[]]}, {"rows": {}, "lost": None},
    ],
)  # fmt: skip
def test_a_forged_line_is_no_chunk(changes):
    assert from_line(forged()) is not None
    assert from_line(forged(**changes)) is None


@pytest.mark.parametrize("text", ["", " ", "x", ":", "tcp://", "tcp://:1", "a:0", "a:65536", "a:1\n", "\x1b[2J:1"])
def test_what_is_no_address_of_a_cluster_is_wrong_usage(text):
    with pytest.raises(UsageError, match=r"must be the address of a scheduler"):
        list(on_dask(Door("efcp_ref"), [], text))


def test_a_finished_campaign_starts_over(target, tmp_path):
    for _ in range(2):
        report = check(Door(target), ["sp"], 10, folder=tmp_path / "report", shrink_seconds=0)
        assert not [note for note in report.notes if "resumed" in note]


# --- failing cases ------------------------------------------------------------------------------------------------


def test_failing_cases_are_kept_as_vectors_and_judged_first_the_next_time(target, tmp_path):
    folder = tmp_path / "report"
    first = check(Door(target), cases=12, folder=folder, shrink_seconds=4)
    kept = {path.name for path in (folder / "failing" / "lcg").iterdir()}
    smallest = {f"{f.minimal.case.seed}-{f.minimal.case.index}-{f.minimal.case.dtype}-smallest"
                for f in first["lcg"].failures if f.minimal}  # fmt: skip
    assert len(kept) == first["lcg"].failed + len(smallest)
    assert smallest <= kept
    assert {p.name for p in (folder / "failing" / "top_k").iterdir()} >= {"0-2-float64"}
    again = check(Door(target), cases=2, folder=folder, shrink_seconds=0, seed=9)
    assert [note for note in again.notes if "failed before" in note]
    assert again["lcg"].failed > 4  # the kept ones count, though this campaign has two cases in two precisions
    Path(target).write_text(Path(target).read_text().replace("omega[i] =", "omega[i] +=").replace("> 40", "> 1e9"))
    healed = check(Door(target), cases=2, folder=folder, shrink_seconds=0)
    assert healed.exit_code == 0
    assert any(note.endswith(", 0 still do") for note in healed.notes)


def test_a_kept_vector_that_is_damaged_is_left_out_and_counted(target, tmp_path):
    folder = tmp_path / "report"
    check(Door(target), ["lcg"], cases=4, folder=folder, shrink_seconds=0)
    broken = next((folder / "failing" / "lcg").iterdir()) / "case.json"
    broken.write_text("{")
    report = check(Door(target), ["lcg"], cases=4, folder=folder, shrink_seconds=0)
    assert any("1 kept vectors cannot be read" in note for note in report.notes)


# --- progress -----------------------------------------------------------------------------------------------------


def test_progress_tells_how_much_is_done_and_about_how_long_it_takes(target):
    told = []
    campaign.run(Door(target), ["sp", "lcg"], 30, jobs=1, shrink_seconds=0, progress=lambda *a: told.append(a))
    assert [done for _, done, _ in told] == [10, 20, 30, 40, 50, 60]
    assert {total for *_, total in told} == {60}
    assert all("about" in label and label.endswith(" left") for label, *_ in told)
    assert told[-1][0].endswith("about 0 s left")


def test_judging_in_one_process_and_in_chunks_agree_in_this_process(target):
    direct = Target(target)
    try:
        plain = terminal.as_json(judge(direct, ["lcg"], 15, shrink_seconds=0))
    finally:
        direct.close()
    chunked = terminal.as_json(campaign.run(Door(target), ["lcg"], 15, jobs=1, shrink_seconds=0))
    assert same(plain) == same(chunked)


def test_an_interrupt_keeps_what_was_judged(monkeypatch, target, tmp_path):
    folder = tmp_path / "report"

    def stop(label, done, total):
        if done >= 20:
            raise KeyboardInterrupt

    report = campaign.run(Door(target), ["sp"], 60, jobs=1, folder=folder, progress=stop)
    assert report.exit_code == 130
    assert report["sp"].passed == 40
    assert len(rows_in(folder / "chunks.log")) == 2


def test_local_targets_are_judged_as_before():
    report = judge(Local({"sp": lambda indices, values, g: (values * g[indices]).sum(1)}), cases=3)
    assert report["sp"].verdict == "pass"
