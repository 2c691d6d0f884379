"""Several workers: cases leave no choice, residuals and mistakes are named, a lost worker is an error."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import efcp_ref
from efcp_ref.cli import main
from efcp_ref.oracle import certify, enclose, workers
from efcp_ref.oracle.core import Declared
from efcp_ref.oracle.criteria import workers as criteria
from efcp_ref.oracle.targets import UsageError
from efcp_ref.oracle.workers import FAMILIES, check_workers, generate, share
from tests.oracle.test_lifeline import written
from tests.oracle.test_process import gone

TOPK = [generate("topk_sgd", 0, i, W) for W in (2, 4) for i in range(2 * len(FAMILIES))]
POWER = [generate("power_compress", 0, i, W) for W in (2, 4) for i in range(2 * len(FAMILIES))]
each_topk = pytest.mark.parametrize("case", TOPK, ids=lambda c: f"{len(c.arguments['gradients'])}-{c.index}")
each_power = pytest.mark.parametrize("case", POWER, ids=lambda c: f"{len(c.arguments['g'])}-{c.index}")


# --- cases --------------------------------------------------------------------------------------------------------


@each_topk
def test_every_sum_is_exact_in_float32_and_no_choice_is_free(case):
    """The runs in float32 are those in float64, and Top-k from the other end keeps the same entries."""
    G, k = case.arguments["gradients"], case.arguments["k"]
    for part in (*G, G.mean(axis=0)):
        wide, narrow = criteria.reference(part, k), criteria.reference(part.astype(np.float32), k)
        mirrored = criteria.reference(part[:, ::-1], k)
        assert np.array_equal(wide[0], narrow[0])
        assert np.array_equal(wide[1], narrow[1])
        assert np.array_equal(wide[0], mirrored[0][:, ::-1])


def test_cases_depend_on_seed_index_and_workers_alone():
    first, again, other = (generate("topk_sgd", 3, 5, W) for W in (4, 4, 2))
    assert np.array_equal(first.arguments["gradients"], again.arguments["gradients"])
    assert first.arguments["gradients"].shape[0] == 4
    assert other.arguments["gradients"].shape[0] == 2


def test_a_worker_is_handed_its_own_gradients():
    case = generate("power_compress", 0, 0, 4)
    assert np.array_equal(share(case, 2).arguments["g"], case.arguments["g"][2])
    assert share(case, 2).arguments["Q"] is case.arguments["Q"]


# --- Top-k --------------------------------------------------------------------------------------------------------


def answers(us, xis=None):
    """What the workers return: u (W, T, d), and their errors where they show them."""
    W = len(us)
    states = [None] * W if xis is None else [[{"t": t + 1, "xi": xi} for t, xi in enumerate(one)] for one in xis]
    return {"workers": [{"u": u, "states": s} for u, s in zip(us, states, strict=True)]}


def judged(case, us, xis=None):
    checks = criteria.topk_sgd(case, answers(us, xis), Declared())
    return next((c for c in checks if c.verdict == "fail"), checks[-1] if len(checks) < 2 else checks[1])


def same(u, case):
    return [u] * len(case.arguments["gradients"])


def by_hand(case, local):
    """Top-k with error feedback, written down without the reference: u (T, d) and xi (W, T, d)."""
    G, k = case.arguments["gradients"], case.arguments["k"]
    rows = G if local else np.broadcast_to(G.mean(axis=0), G.shape)
    errors, us, xis = np.zeros((len(G), G.shape[2])), [], []
    for t in range(G.shape[1]):
        sent = np.zeros_like(errors)
        for w in range(len(G)):
            a = errors[w] + rows[w, t]
            for i in np.argpartition(-abs(a), k - 1)[:k]:
                sent[w, i] = a[i]
            errors[w] = a - sent[w]
        us.append(sent.mean(axis=0))
        xis.append(errors.copy())
    return np.array(us), np.array(xis).transpose(1, 0, 2)


@each_topk
def test_both_conventions_pass_and_are_told_apart(case):
    names = set()
    for local in (False, True):
        u, xi = by_hand(case, local)
        check = judged(case, same(u, case), xi)
        assert check.verdict == "pass"
        names.add(check.reason)
    if names != {criteria.EITHER}:
        assert names == {criteria.AVERAGED, criteria.LOCAL}


@each_topk
@pytest.mark.parametrize("local", [False, True])
def test_both_conventions_are_enclosed(case, local):
    """u and xi in fractions are those written down by hand, and those of the reference, bit for bit."""
    G, k = case.arguments["gradients"], case.arguments["k"]
    u, xi = enclose.together(G, k, averaged=not local)
    for found, hand in zip((u, xi), by_hand(case, local), strict=True):
        assert found.shape == hand.shape
        assert not found.far(hand).any()
        assert found[1].shape == hand[1].shape
        assert not found[1].far(hand[1]).any()


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("local", [False, True])
def test_verdicts_of_several_workers_are_certified(local, wrong):
    """Every inequality of u and xi, whether it holds or not; an oracle that errs is noticed."""
    for case in TOPK[::5]:
        u, xi = by_hand(case, local)
        with certify.certifying():
            checks = criteria.topk_sgd(case, answers(same(u + (1.0 if wrong else 0.0), case), xi), Declared())
        found = certify.certificate_of(checks)
        assert (found.rational, found.missing, found.overturned) == (1 if wrong else 2, {}, 0)
        assert ("fail" in {c.verdict for c in checks}) == wrong
        with certify.certifying(), pytest.MonkeyPatch.context() as patch:
            both = criteria.conventions(case.arguments["gradients"], case.arguments["k"])
            off = {n: criteria.Together(run.u + 0.5, run.xi + 0.5) for n, run in both.items()}
            patch.setattr(criteria, "conventions", lambda gradients, k, off=off: off)
            checks = criteria.topk_sgd(case, answers(same(u + (1.0 if wrong else 0.5), case), xi), Declared())
        assert certify.certificate_of(checks).overturned == (1 if wrong else 2)
        assert {c.reason for c in checks if c.verdict == "inconclusive"} == {"oracle"}


@each_power
def test_factors_of_several_workers_are_certified(case):
    """The mean over 2, 4 or 8 workers is exact, so that what is enclosed of one matrix is enclosed of the mean."""
    P, Q = efcp_ref.power_compress(case.arguments["g"].mean(axis=0), case.arguments["Q"])
    result = {"workers": [{"P": P, "Q": Q}] * len(case.arguments["g"])}
    with certify.certifying():
        found = certify.certificate_of(criteria.power_compress(case, result, Declared()))
    assert (found.overturned, found.missing) == (0, {})
    assert found.certified > 0 or not np.any(P)


def test_most_cases_tell_the_conventions_apart():
    told = [judged(case, same(by_hand(case, True)[0], case)).reason for case in TOPK]
    assert told.count(criteria.LOCAL) >= len(told) / 2
    assert set(told) == {criteria.LOCAL, criteria.EITHER}


@each_topk
def test_either_convention_loses_nothing(case):
    """sum of u + mean of the last errors = sum of the mean gradients."""
    G = case.arguments["gradients"]
    for run in criteria.conventions(G, case.arguments["k"]).values():
        assert np.array_equal(run.u.sum(axis=0) + run.xi[:, -1].mean(axis=0), G.mean(axis=0).sum(axis=0))


def test_every_known_mistake_fails_and_is_named():
    found = set()
    for case in TOPK:
        both = criteria.conventions(case.arguments["gradients"], case.arguments["k"]).values()
        for text, u in criteria.mistakes(case.arguments["gradients"], case.arguments["k"]).items():
            if any(np.array_equal(u, run.u) for run in both):
                continue  # no mistake on this case
            check = judged(case, same(u, case))
            assert check.verdict == "fail"
            assert check.reason.startswith("agrees with: ")
            found.add(text.replace("4 workers", "2 workers"))
    assert found == set(criteria.mistakes(TOPK[0].arguments["gradients"], TOPK[0].arguments["k"]))


def test_the_last_bit_of_one_entry_fails():
    case = TOPK[0]
    u, _ = by_hand(case, True)
    t, i = map(int, np.argwhere(u)[-1])
    u[t, i] = np.nextafter(u[t, i], np.inf)
    check = judged(case, same(u, case))
    assert check.verdict == "fail"
    assert check.at == (t + 1, i)
    assert check.reason == f"step {t + 1} departs from both, here the {criteria.LOCAL}"


def test_replicas_that_drift_apart_fail():
    case = TOPK[0]
    u, _ = by_hand(case, True)
    other = u.copy()
    other[2:] += 1
    check = judged(case, [u, other])
    assert check.reason == "worker 1 and worker 0 differ from step 3 on: the replicas drift apart"
    assert check.at == (3, 0)


def test_an_error_of_the_other_convention_fails():
    case = TOPK[0]
    u, _ = by_hand(case, True)
    check = judged(case, same(u, case), by_hand(case, False)[1])
    assert (check.stage, check.verdict) == ("xi", "fail")
    assert f"not the {criteria.LOCAL}" in check.reason


def test_states_for_too_few_steps_fail():
    case = TOPK[0]
    u, xi = by_hand(case, True)
    check = judged(case, same(u, case), xi[:, :-1])
    assert (check.stage, check.verdict) == ("state", "fail")


@pytest.mark.parametrize("wrong", [lambda u: u[:-1], lambda u: u * np.nan, lambda u: u.astype(int)])
def test_a_wrong_shape_or_kind_names_the_worker(wrong):
    case = TOPK[0]
    u, _ = by_hand(case, True)
    check = judged(case, [u, wrong(u)])
    assert (check.tier, check.verdict) == ("T0", "fail")
    assert check.reason.startswith("worker 1: u has shape")


# --- PowerSGD -----------------------------------------------------------------------------------------------------


def factors(case, order, dtype=np.float64):
    """P and Q' of averaged PowerSGD: products averaged ("late"), or gradients averaged first ("early")."""
    g, Q = (case.arguments[n].astype(dtype) for n in ("g", "Q"))
    M = g.reshape(len(g), g.shape[1], -1)
    if order == "early":
        M = M.mean(axis=0, keepdims=True)
    P = np.linalg.qr(np.mean([m @ Q for m in M], axis=0, dtype=dtype))[0]
    return {"P": P, "Q": np.mean([m.T @ P for m in M], axis=0, dtype=dtype)}


def verdict(checks):
    return "fail" if any(c.verdict == "fail" and c.tier != "T3" for c in checks) else "pass"


@each_power
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_averaged_factors_pass_in_either_order(case, dtype):
    case, declared = replace(case, dtype=np.dtype(dtype).name), Declared(orthogonalisation="householder")
    for order in ("late", "early"):
        result = {"workers": [factors(case, order, dtype)] * len(case.arguments["g"])}
        assert verdict(criteria.power_compress(case, result, declared)) == "pass"


def test_sums_for_means_and_own_gradients_fail():
    for case in POWER:
        if case.label == "the same gradient everywhere":
            continue
        W = len(case.arguments["g"])
        right = factors(case, "late")
        wrong = [{"P": right["P"], "Q": W * right["Q"]}] * W
        own = [efcp_ref.power_compress(g, case.arguments["Q"])._asdict() for g in case.arguments["g"]]
        for workers_ in (wrong, own):
            if np.any(right["Q"]):
                assert verdict(criteria.power_compress(case, {"workers": workers_}, Declared())) == "fail"


def test_factors_that_differ_in_bits_are_a_warning():
    case = POWER[0]
    right, declared = factors(case, "late"), Declared(orthogonalisation="householder")
    near = {"P": right["P"], "Q": np.nextafter(right["Q"], 1e9)}
    checks = criteria.power_compress(case, {"workers": [right, near]}, declared)
    assert verdict(checks) == "pass"
    assert (checks[-1].tier, checks[-1].verdict) == ("T3", "fail")


def test_the_mean_of_local_errors_of_PowerSGD_is_the_error_of_the_mean():
    """M_w - P P^T M_w is linear in M_w: neither u nor the mean error tells where the error is kept."""
    g = generate("power_compress", 0, 0, 4).arguments["g"]
    M = g.reshape(len(g), g.shape[1], -1)
    P = efcp_ref.power_compress(M.mean(axis=0), np.ones((M.shape[2], 2)) + np.eye(M.shape[2], 2)).P
    local = np.mean([m - P @ (P.T @ m) for m in M], axis=0)
    averaged = M.mean(axis=0) - P @ (P.T @ M.mean(axis=0))
    assert np.allclose(local, averaged, atol=1e-12)


# --- processes ----------------------------------------------------------------------------------------------------

FILES = '''
import os, pathlib, time
import numpy as np
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
folder = pathlib.Path(__file__).parent / os.environ["MASTER_PORT"]
folder.mkdir(exist_ok=True)
calls = 0

def mean(a):
    """Through files: no library of communication is needed to be judged."""
    global calls
    calls += 1
    np.save(folder / f"{calls}-{rank}.tmp.npy", a)
    os.replace(folder / f"{calls}-{rank}.tmp.npy", folder / f"{calls}-{rank}.npy")
    names = [folder / f"{calls}-{w}.npy" for w in range(size)]
    while not all(n.exists() for n in names):
        time.sleep(0.002)
    return np.mean([np.load(n) for n in names], axis=0, dtype=a.dtype)

class topk_sgd:
    def __init__(self, d, k):
        self.k, self.xi = k, np.zeros(d)
    def step(self, g):
        a = self.xi + g
        c = np.zeros(len(a), g.dtype)
        kept = np.argsort(-abs(a))[: self.k]
        c[kept] = a[kept]
        self.xi = a - c
        BREAK
        return mean(c)
'''


def target(tmp_path, fault="pass"):
    path = tmp_path / "mine.py"
    path.write_text(FILES.replace("BREAK", fault))
    return str(path)


def test_two_processes_pass_and_the_residual_is_named(tmp_path):
    report = check_workers(target(tmp_path), 2, cases=4)
    assert report.exit_code == 0
    assert report["topk_sgd"].passed == 8
    assert report["power_compress"].verdict == "skip"
    assert any(n.startswith("topk_sgd with 2 workers: local residual in ") for n in report.notes)


def test_a_worker_that_dies_is_named_and_the_next_case_is_judged(tmp_path):
    once = (
        "mark = pathlib.Path(__file__).with_name('done')\n"
        "        if rank == 1 and not mark.exists(): mark.touch(); os._exit(3)"
    )
    report = check_workers(target(tmp_path, once), 2, ["topk_sgd"], cases=2, dtype="float64", timeout=3)
    assert report["topk_sgd"].errors == {"died": 1}
    assert report["topk_sgd"].passed == 1
    reason = report["topk_sgd"].failures[0].verdict.reason
    assert reason == "worker 1: ended the process with exit code 3"


def test_a_worker_that_raises_is_blamed_and_not_those_who_wait(tmp_path):
    report = check_workers(
        target(tmp_path, "if rank == 1: raise ValueError('no')"), 2, cases=1, dtype="float64", timeout=2
    )
    assert report["topk_sgd"].errors == {"raised": 1}
    assert report["topk_sgd"].failures[0].verdict.reason == "worker 1: raised ValueError: no"


def test_a_broken_import_is_told_once(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import no_such_thing")
    report = check_workers(str(path), 2)
    assert report.exit_code == 3
    assert "no_such_thing" in report.broken


def test_the_command_line_names_the_residual_and_repeats_itself(tmp_path):
    ran = CliRunner().invoke(main, ["check", target(tmp_path), "--workers", "2", "--cases", "1", "--json",
                                    "--certify", "--report", str(tmp_path / "report")])  # fmt: skip
    assert ran.exit_code == 0
    found = json.loads(ran.stdout)
    assert found["target"].startswith("--workers 2 ")
    assert any("residual" in note for note in found["notes"])
    judged = next(o for o in found["operations"] if o["operation"] == "topk_sgd")
    assert judged["certificate"]["rational"] == judged["passed"] == 2
    assert not judged["certificate"]["missing"]
    assert (tmp_path / "report" / "index.html").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["efcp_ref", "--workers", "3"], "must be one of 2, 4, 8"),
        (["efcp_ref", "--workers", "0"], "must be one of 2, 4, 8"),
        (["efcp_ref", "--workers", "2", "-o", "sp"], "only topk_sgd and power_compress are judged"),
        (["efcp_ref", "--workers", "2", "--jobs", "2"], "not with --jobs"),
        (["--command", "./mine", "--workers", "2"], "--workers goes with TARGET"),
        (["no_such_target.py", "--workers", "2"], "no such target"),
    ],
)
def test_wrong_usage(words, told):
    ran = CliRunner().invoke(main, ["check", *words])
    assert ran.exit_code == 2
    assert told in ran.output


def test_the_reference_in_several_processes_does_not_communicate_and_fails():
    report = check_workers("efcp_ref", 2, ["topk_sgd"], cases=1, dtype="float64")
    assert report["topk_sgd"].failures[0].verdict.first.reason.endswith("the replicas drift apart")


def test_a_free_port_is_free():
    assert 1024 <= workers.free_port() < 1 << 16


def test_another_number_of_workers_is_refused():
    with pytest.raises(UsageError, match=r"the mean must be exact"):
        check_workers("efcp_ref", 5)


# --- who is blamed, and who is left -------------------------------------------------------------------------------

IMPORTS = {
    "sys.exit(3)": "worker 1: called sys.exit(3)",
    "os._exit(3)": "worker 1: importing ended the process with exit code 3",
    "os.kill(os.getpid(), signal.SIGSEGV)": "worker 1: importing was killed by signal 11 (SIGSEGV)",
    "raise ValueError('no')": "worker 1: raised ValueError: no",
}


@pytest.mark.parametrize("end", IMPORTS)
@pytest.mark.parametrize(
    "others", ["time.sleep(600)", "time.sleep(0.1); raise RuntimeError('Connection closed by peer')"]
)
def test_a_worker_that_ends_while_it_is_imported_is_named_at_once(end, others, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"import os, signal, sys, time\nif os.environ['RANK'] == '1': {end}\nelse: {others}\n")
    began = time.monotonic()
    report = check_workers(str(path), 4)
    assert time.monotonic() - began < 20, "nobody waits for those who wait"
    assert report.exit_code == 3
    assert report.broken.splitlines()[0] == IMPORTS[end]


def test_imports_that_all_take_too_long_name_every_worker(tmp_path):
    (tmp_path / "mine.py").write_text("import time; time.sleep(600)")
    report = check_workers(str(tmp_path / "mine.py"), 2, start_timeout=0.3)
    assert report.broken == "workers 0 and 1: importing took longer than 0.3 s"


@pytest.mark.parametrize(
    ("fault", "error", "told"),
    [
        ("os.kill(os.getpid(), 11)", "died", "worker 1: was killed by signal 11 (SIGSEGV)"),
        ("os._exit(3)", "died", "worker 1: ended the process with exit code 3"),
        ("raise ValueError('no')", "raised", "worker 1: raised ValueError: no"),
    ],
)
def test_the_cause_is_blamed_and_not_the_connection_that_is_lost(fault, error, told, tmp_path):
    both = f"if rank == 1: {fault}\n        time.sleep(0.2); raise RuntimeError('[gloo] Connection closed by peer')"
    report = check_workers(target(tmp_path, both), 2, ["topk_sgd"], cases=2, dtype="float64", timeout=5)
    assert report["topk_sgd"].errors == {error: 2}
    assert report["topk_sgd"].failures[0].verdict.reason == told


def test_all_who_wait_are_named_where_none_can_be_blamed(tmp_path):
    report = check_workers(
        target(tmp_path, "if rank == 1: time.sleep(600)"), 2, ["topk_sgd"], cases=1, dtype="float64", timeout=1
    )
    assert report["topk_sgd"].errors == {"timeout": 1}
    assert report["topk_sgd"].failures[0].verdict.reason == "workers 0 and 1: timeout after 1 s"


JOINED = """
import socket
if rank: socket.create_connection(("127.0.0.1", int(os.environ["MASTER_PORT"])), 5).close()
else:
    with socket.create_server(("127.0.0.1", int(os.environ["MASTER_PORT"]))) as one: one.accept()
"""


def test_all_are_started_again_where_one_raised_and_another_waited(tmp_path):
    """A worker that joins a group while it is imported cannot join one whose others are still there."""
    once = (
        "mark = pathlib.Path(__file__).with_name('done')\n"
        "        if rank == 1 and not mark.exists(): mark.touch(); raise ValueError('no')"
    )
    path = tmp_path / "joins.py"
    retry = JOINED.replace("if rank:", "if rank: time.sleep(1);")
    path.write_text(FILES.replace("BREAK", once).replace("class topk_sgd", retry + "\nclass topk_sgd"))
    report = check_workers(str(path), 2, ["topk_sgd"], cases=2, dtype="float64", timeout=2, start_timeout=10)
    assert report["topk_sgd"].errors == {"raised": 1}
    assert report["topk_sgd"].passed == 1


STALLING = """
import os, sys, time
def told():
    name = f"{__file__}.{os.environ['RANK']}"
    with open(name, "w") as file:
        file.write(str(os.getpid()))
    os.rename(name, name + ".pid")
"""
STALLS = {
    "all stall while they are imported": "told()\ntime.sleep(600)",
    "one stalls while it is imported": "told()\nif os.environ['RANK'] == '1': time.sleep(600)",
    "one stalls in a call": "class topk_sgd:\n    def __init__(self, d, k): pass\n"
    "    def step(self, g):\n        told()\n        time.sleep(600 * int(os.environ['RANK']))\n        return g",
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a target ends at its next case")
@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_every_worker_ends_with_the_one_that_judges_it(stall, number, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(STALLING + STALLS[stall])
    line = [sys.executable, "-m", "efcp_ref", "check", path, "--workers", "2", "--timeout", "600", "--json"]
    mine = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    stalled = [written(tmp_path / f"mine.py.{rank}.pid", mine) for rank in (0, 1)]
    mine.send_signal(number)
    assert mine.wait(10) == {signal.SIGINT: 130}.get(number, -number)
    assert all(gone(pid) for pid in stalled)
