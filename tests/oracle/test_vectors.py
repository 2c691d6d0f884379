"""Door 3: the bundle is the same everywhere, says why each case exists, runs every printed line, and is read safely."""

import io
import json
import os
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import efcp_ref
from efcp_ref import tracing
from efcp_ref.cli import main
from efcp_ref.contract import NAMES, OPERATIONS, OPTIMIZERS
from efcp_ref.oracle import hostile, vectors
from efcp_ref.oracle.cases import generate
from efcp_ref.oracle.hostile import Hostile, Missing
from efcp_ref.oracle.targets import UsageError
from efcp_ref.oracle.vectors import check_outputs, legal, load, read, save, write
from efcp_ref.paper import algorithm_1, algorithm_7, printed, sign, woodbury
from efcp_ref.paper.window import keep

COMMITTED = Path(__file__).parents[2] / "vectors" / "v1"


@pytest.fixture(scope="module")
def bundle():
    return list(read(COMMITTED))


# --- the bundle ---------------------------------------------------------------------------------------------------


def test_the_committed_vectors_are_what_is_generated_here_bit_for_bit():
    assert vectors.differences(COMMITTED) == []


def test_they_are_small_and_cover_the_contract(bundle):
    files = [p for p in COMMITTED.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 5_000_000
    assert {v.case.operation for v in bundle} == set(NAMES)
    assert len({v.id for v in bundle}) == len(bundle) > 150


def test_every_case_keeps_the_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(vectors.SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema)
    assert (COMMITTED / "case.schema.json").read_bytes() == vectors.SCHEMA.read_bytes()
    for path in COMMITTED.rglob("case.json"):
        valid.validate(json.loads(path.read_text()))


def test_inputs_are_integers_times_powers_of_two_that_float32_holds(bundle):
    for vector in bundle:
        for name, value in vector.case.arguments.items():
            for a in value if isinstance(value, list) else [value]:
                if isinstance(a, np.ndarray) and a.dtype == np.float64:
                    assert np.array_equal(a.astype(np.float32), a), (vector.id, name)


def test_why_is_said(bundle):
    assert all(v.why["bug"] and v.why["effect"] for v in bundle)
    assert all(v.source["generator"] == vectors.GENERATOR for v in bundle)


# --- what the vectors execute -------------------------------------------------------------------------------------


def runs(vector):
    """The executable paper on one vector: the operation, and the algorithms around it where they are printed."""
    a = vector.case.arguments
    if vector.case.operation not in OPTIMIZERS:
        yield lambda: getattr(efcp_ref, vector.case.operation)(*a.values())
        if vector.case.operation == "mfac_direction":
            S, h = vector.expected["S"], vector.expected["h"]
            yield lambda: woodbury.coefficients_recursive(S, h, a["lam"])
        return
    parameters = {n: v for n, v in a.items() if n != "gradients"}

    def steps():
        it = getattr(efcp_ref, vector.case.operation)(**parameters)
        return np.stack([it.step(g) for g in a["gradients"]])

    yield steps
    T, d = a["gradients"].shape
    if vector.case.operation == "topk_sgd":
        rows = iter(a["gradients"])
        yield lambda: algorithm_1.efcp(np.zeros(d), lambda _: next(rows), partial(keep, k=a["k"]),
                                       algorithm_1.identity, None, 1.0, T)  # fmt: skip
    if vector.case.operation == "adagrad_ef":
        grads = iter(a["gradients"])
        yield lambda: algorithm_7.adagrad_ef(np.zeros(d), lambda _: next(grads), a["k"], 1.0, T)
    if vector.case.operation == "ef_signsgd":
        yield lambda: sign.ef_signsgd_run(lambda _, t: a["gradients"][t], np.zeros(d), a["gamma"], T)


def tagged():
    """Every tagged code line: (file, number) -> tag."""
    found = {}
    for path in Path(algorithm_1.__file__).parent.glob("*.py"):
        for number, tag in printed.tags(path.read_text()):
            found[str(path), number] = tag
    return found


def test_the_vectors_execute_every_tagged_line(bundle):
    places, seen = tagged(), set()
    assert len(places) == sum(line.kind == "code" for line in printed.lines().values())

    def watch(frame, event, _):
        if event == "line" and (frame.f_code.co_filename, frame.f_lineno) in places:
            seen.add((frame.f_code.co_filename, frame.f_lineno))
        return watch

    before = sys.gettrace()
    sys.settrace(lambda frame, event, arg: watch if frame.f_code.co_filename.startswith(tracing.PAPER) else None)
    try:
        for vector in bundle:
            if vector.case.family != "real":
                for run in runs(vector):
                    run()
    finally:
        sys.settrace(before)
    missed = sorted(tag for place, tag in places.items() if place not in seen)
    assert missed == []


def test_the_algorithms_around_the_steps_give_the_same_sums(bundle):
    for vector in bundle:
        if vector.case.operation in ("topk_sgd", "adagrad_ef", "ef_signsgd") and vector.case.family != "real":
            *_, last = runs(vector)
            final = last()
            theta = final.x[-1] if hasattr(final, "x") else final[0]
            want = -vector.expected["u"].sum(0)
            assert np.allclose(theta, want, rtol=1e-12, atol=1e-12 * np.abs(want).max())


def test_the_recursion_gives_the_expected_coefficients(bundle):
    for vector in bundle:
        if vector.case.operation == "mfac_direction":
            *_, recursion = runs(vector)
            c = vector.expected["c"]
            assert np.allclose(recursion(), c, rtol=1e-9, atol=1e-9 * np.abs(c).max(initial=0))


# --- outputs ------------------------------------------------------------------------------------------------------


def put(path, a):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, a, allow_pickle=False)


def answer(vector, root, change=lambda a: a):
    """What a right program leaves: the reference's results."""
    case = vector.case
    if case.operation in OPTIMIZERS:
        named = {"u": next(runs(vector))()}
    else:
        out = getattr(efcp_ref, case.operation)(*case.arguments.values())
        named = dict(zip(OPERATIONS[case.operation].outputs, out if isinstance(out, tuple) else (out,), strict=False))
    for name, a in named.items():
        put(root / vector.id / "out" / f"{name}.npy", change(np.asarray(a)))


@pytest.fixture
def outputs(tmp_path, bundle):
    for vector in bundle:
        if vector.case.operation in ("sp", "top_k", "mfac_direction", "topk_sgd"):
            answer(vector, tmp_path)
    return tmp_path


def test_right_outputs_pass_and_the_others_are_skipped(outputs):
    report = check_outputs(outputs, COMMITTED)
    assert report.exit_code == 0
    assert {o.operation for o in report.operations if o.verdict == "pass"} == {
        "sp", "top_k", "mfac_direction", "topk_sgd",
    }  # fmt: skip
    assert {o.verdict for o in report.operations} == {"pass", "skip"}


def test_outputs_can_be_certified(outputs):
    """Every reference value that judges a file is enclosed: T1 and T2 verdicts, all certified, the oracle right."""
    pytest.importorskip("flint")
    plain, certified = (check_outputs(outputs, COMMITTED, ["sp", "mfac_direction"], certify=on) for on in (False, True))
    assert [o.verdict for o in plain.operations] == [o.verdict for o in certified.operations]
    assert plain["sp"].certificate is None
    for name in ("sp", "mfac_direction"):
        found = certified[name].certificate
        assert found.certified > 0
        assert not found.missing
        assert not found.overturned
        assert found.largest <= 0.1
    told = CliRunner().invoke(main, ["check", "--outputs", str(outputs), "--vectors", str(COMMITTED), "--certify"])
    assert told.exit_code == 0
    assert "verdicts certified" in told.output


def test_outputs_inside_the_bundle(tmp_path, bundle):
    shutil.copytree(COMMITTED, tmp_path / "v")
    for vector in bundle:
        if vector.case.operation == "lcg":
            answer(vector, tmp_path / "v")
    assert check_outputs(tmp_path / "v")["lcg"].verdict == "pass"
    assert vectors._files(tmp_path / "v") == vectors._files(COMMITTED), "what programs leave is no part of the bundle"


def test_a_wrong_output_fails(outputs):
    put(outputs / "sp" / "0001" / "out" / "omega.npy", np.zeros(3))
    report = check_outputs(outputs, COMMITTED)
    assert report.exit_code == 1
    assert report["sp"].failed == 1
    assert report["sp"].failures[0].verdict.case.index == 1
    assert check_outputs(outputs, COMMITTED, ["sp"], only=2).exit_code == 0


def test_the_command_that_is_said_to_reproduce_a_failure_does(outputs):
    """It is run as it is printed."""
    wrong = next(path for path in sorted((outputs / "sp").rglob("omega.npy")))
    put(wrong, np.load(wrong) + 1)
    words = ["check", "--outputs", str(outputs), "--vectors", str(COMMITTED)]
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 1
    (line,) = {line.split("reproduce")[1] for line in told.output.splitlines() if "reproduce  " in line}
    again = CliRunner().invoke(main, shlex.split(line)[1:])
    assert again.exit_code == 1, again.output


def test_a_missing_file_is_an_error(outputs):
    (outputs / "sp" / "0002" / "out" / "omega.npy").unlink()
    report = check_outputs(outputs, COMMITTED)
    assert report.exit_code == 3
    assert report["sp"].errors == {"missing": 1}


def test_declarations_beside_the_outputs(outputs):
    (outputs / "declared.json").write_text('{"SOLVER": "eigh"}')
    assert check_outputs(outputs, COMMITTED, ["sp"]).exit_code == 0
    (outputs / "declared.json").write_text('{"SOLVER": "magic"}')
    with pytest.raises(UsageError, match="SOLVER"):
        check_outputs(outputs, COMMITTED)


def test_no_bundle_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="--vectors"):
        check_outputs(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        check_outputs(tmp_path / "nothing")
    with pytest.raises(UsageError, match="unknown operation"):
        check_outputs(tmp_path, COMMITTED, ["tea"])


def test_nothing_left_decides_nothing(tmp_path):
    assert check_outputs(tmp_path, COMMITTED).exit_code == 3


def test_a_folder_that_is_in_use_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="new or empty"):
        write(tmp_path)
    os.symlink(tmp_path, tmp_path / "link")
    with pytest.raises(UsageError, match="new or empty"):
        write(tmp_path / "link")


@pytest.mark.parametrize("operation", NAMES)
def test_any_case_can_be_kept_and_read_again(tmp_path, operation):
    for dtype in ("float64", "float32"):
        case = generate(operation, 3, 2).with_dtype(dtype)
        save(tmp_path, case, f"kept/{operation}-{dtype}")
        back = load(tmp_path, f"kept/{operation}-{dtype}").case
        assert (back.id, back.flags, back.label) == (case.id, case.flags, case.label)
        for name, value in case.arguments.items():
            for a, b in zip(*((v if isinstance(v, list) else [v]) for v in (back.arguments[name], value)), strict=True):
                assert np.asarray(a).tobytes() == np.ascontiguousarray(np.asarray(b)).tobytes() or float(a) == float(b)


# --- hostile ------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path):
    """A bundle of one case that may be broken, with no hashes to hold it back."""
    shutil.copytree(COMMITTED / "sp" / "0000", tmp_path / "sp" / "0000")
    return tmp_path


def test_a_changed_array_is_noticed(copy):
    put(copy / "sp" / "0000" / "g.npy", np.zeros(24))
    with pytest.raises(Hostile, match="SHA-256"):
        load(copy, "sp/0000")


def test_a_changed_case_is_noticed(tmp_path):
    shutil.copytree(COMMITTED, tmp_path / "v")
    path = tmp_path / "v" / "sp" / "0000" / "case.json"
    path.write_text(path.read_text().replace("small integers", "large integers"))
    with pytest.raises(Hostile, match="SHA-256 of the manifest"):
        list(read(tmp_path / "v"))


def edit(copy, change):
    path = copy / "sp" / "0000" / "case.json"
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))


@pytest.mark.parametrize("name", ["../g.npy", "/etc/passwd", "a/b.npy", "..", "", "g.npy\0", "~/g.npy", "\\g.npy"])
def test_paths_that_lead_elsewhere_are_refused(copy, name):
    edit(copy, lambda body: body["arguments"]["g"].update(npy=name))
    with pytest.raises(Hostile, match="name"):
        load(copy, "sp/0000")


def test_links_are_not_followed(copy, tmp_path):
    secret = tmp_path / "secret.npy"
    np.save(secret, np.zeros(24))
    (copy / "sp" / "0000" / "g.npy").unlink()
    os.symlink(secret, copy / "sp" / "0000" / "g.npy")
    with pytest.raises(Hostile, match="symbolic link"):
        load(copy, "sp/0000")
    os.symlink(copy / "sp", copy / "other")
    with pytest.raises(Hostile, match="symbolic link"):
        load(copy, "other/0000")


def test_a_pipe_does_not_make_us_wait(copy):
    (copy / "sp" / "0000" / "g.npy").unlink()
    os.mkfifo(copy / "sp" / "0000" / "g.npy")
    with pytest.raises(Hostile, match="no plain file"):
        load(copy, "sp/0000")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b["arguments"]["g"].update(shape=[23]), "case.json says"),
        (lambda b: b["arguments"]["g"].update(dtype="float32"), "case.json says"),
        (lambda b: b["arguments"].update(block_size=0), "block_size"),
        (lambda b: b["arguments"].update(block_size=7), "indices"),
        (lambda b: b["arguments"].update(density="much"), "must be a number"),
        (lambda b: b["arguments"].update(density=2.0), "density"),
        (lambda b: b["arguments"].pop("density"), "must be indices"),
        (lambda b: b.update(operation="tea"), "must be one of"),
        (lambda b: b.update(version=2), "expected 'efcp-ref vector' version 1"),
        (lambda b: b.update(flags=[1]), "flags"),
        (lambda b: b["expected"].update(omega=3), "expected must hold arrays"),
    ],
)
def test_a_case_that_is_no_case_is_refused_in_words(copy, change, words):
    edit(copy, change)
    with pytest.raises(Hostile, match=words):
        load(copy, "sp/0000")


def header(text, data=b"", version=b"\1\0"):
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode() + data


def dumped(a, **more):
    file = io.BytesIO()
    np.save(file, a, **more)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (dumped(np.array([{"a": 1}], object), allow_pickle=True), "not of a plain array"),
        (dumped(np.zeros(2, [("a", "<f8")])), "not of a plain array"),
        (dumped(np.array(["text"])), "not of a plain array"),
        (dumped(np.zeros(2, np.complex128)), "not of a plain array"),
        (dumped(np.zeros(2, ">f8")), "not of a plain array"),
        (dumped(np.zeros(3))[:-1], "bytes for shape"),
        (dumped(np.zeros(3)) + b"x", "bytes for shape"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }"), "needs more than"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 99999999999999), }"), "needs more than"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"), "not of a plain array"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1, " * 9 + "), }", bytes(8)), "at most 8"),
        (header("__import__('os').system('true')"), "not of a plain array"),
        (header("{'descr': '<f3', 'fortran_order': False, 'shape': (), }"), "must be one of"),
        (b"\x93NUMPY\1\0\xff\xff", "cut off"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff", "cut off"),
        (b"\x93NUMPY\4\0", "wrong first bytes"),
        (b"PK\3\4", "wrong first bytes"),
        (b"", "wrong first bytes"),
        (header("{'descr': '|b1', 'fortran_order': False, 'shape': (1,), }", b"\7"), "neither 0 nor 1"),
    ],
)
def test_absurd_files_are_refused_in_words(data, words):
    with pytest.raises(Hostile, match=words):
        hostile.npy(data)


@pytest.mark.parametrize("a", [np.zeros((2, 3)), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(3.0),
                               np.zeros((0, 4), np.float32), np.array([True, False]), np.arange(3, dtype=np.int8)])
def test_what_numpy_writes_is_read(a):
    back = hostile.npy(dumped(a))
    assert back.dtype == a.dtype
    assert np.array_equal(back, a)
    assert back.flags.writeable


def test_what_we_write_numpy_reads():
    for a in (np.zeros((2, 3)), np.array(3), np.arange(5, dtype=np.int32), np.zeros((0, 2), np.float32)):
        assert np.array_equal(np.load(io.BytesIO(hostile.npy_bytes(a)), allow_pickle=False), a)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 100_000, "no JSON"), (b"[" * 40 + b"]" * 40, "nested deeper"), (b"[NaN]", "NaN"),
        (b"-Infinity", "Infinity"),
        (b'{"a": 1, "a": 2}', "same key twice"), (b"\xff", "no JSON"), (b"1" * 5000, "no JSON"), (b"", "no JSON"),
        (b"[" + b"1," * 1_000_001 + b"1]", "more than 1000000 values"), (b" " * (hostile.LARGEST + 1), "at most"),
    ],
)  # fmt: skip
def test_json_that_is_refused(text, words):
    with pytest.raises(Hostile, match=words):
        hostile.json_value(text)


def test_a_missing_file_is_told_apart(tmp_path):
    with pytest.raises(Missing):
        hostile.read_inside(tmp_path, "nothing.npy")
    with pytest.raises(Missing):
        hostile.read_inside(tmp_path / "nowhere", "nothing.npy")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    (tmp_path / "big").write_bytes(bytes(100))
    with pytest.raises(Hostile, match="at most 99"):
        hostile.read_inside(tmp_path, "big", 99)


def test_numbers_that_would_take_all_memory_are_refused():
    with pytest.raises((ValueError, TypeError)):
        legal("topk_sgd", {"d": 1 << 40, "k": 1, "gradients": np.zeros((1, 1))})
    with pytest.raises(ValueError, match="larger than any case"):
        legal("dense_mfac", {"d": 1 << 20, "m": 1 << 20, "lam": 1.0, "gradients": np.zeros((1, 1))})


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_a_folder_where_a_file_should_be_is_refused_and_let_go(tmp_path):
    (tmp_path / "case.json").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Hostile, match="case.json is no plain file"):
        hostile.read_inside(tmp_path, "case.json")
    assert len(os.listdir("/proc/self/fd")) == before
