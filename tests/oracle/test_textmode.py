"""Door 2 as text: what is generated can be read back, and what is written is judged or refused in words."""

import numpy as np
import pytest

from efcp_ref.contract import NAMES, OPERATIONS
from efcp_ref.oracle import terminal, textmode
from efcp_ref.oracle.cases import generate
from efcp_ref.oracle.core import Case
from efcp_ref.oracle.targets import UsageError
from efcp_ref.oracle.textmode import entry, generated, read_answers, text_of, verify


def same(read, value):
    value = np.asarray(value)
    return read.shape == value.shape and np.array_equal(read.astype(float), value.astype(float), equal_nan=True)


@pytest.mark.parametrize("operation", NAMES)
def test_a_case_is_read_back_bit_for_bit(operation):
    case = generate(operation, 0, 2)
    [(key, named)] = read_answers(text_of(case).encode()).by_case.items()
    assert key == (operation, 0, 2, "float64")
    for name, value in case.arguments.items():
        if isinstance(value, list):
            assert all(same(named[f"{name}.{i}"], v) for i, v in enumerate(value))
        else:
            assert same(named[name], float(value) if name == "density" else value)


def answered(operation, cases=6, dtype="float64", change=lambda u: u, **more):
    """What a right program writes: the reference's results, as text."""
    import efcp_ref

    lines = []
    for case in generated(operation, cases, dtype=dtype, **more):
        out = getattr(efcp_ref, operation)(*case.arguments.values())
        out = out if isinstance(out, tuple) else (out,)
        lines.append(f"case {operation} {case.seed} {case.index} {case.dtype}")
        for name, value in zip(OPERATIONS[operation].outputs, out, strict=False):
            lines.extend(entry(name, change(np.asarray(value))))
        lines.append("end")
    return "\n".join(lines)


@pytest.mark.parametrize("operation", ["sp", "lcg", "top_k", "mfac_direction", "low_rank_inner_product", "sign_step"])
@pytest.mark.parametrize("dtype", ["float64", "float32", None])
def test_a_right_program_passes(operation, dtype):
    report = verify(operation, answered(operation, dtype=dtype).encode())
    assert report.exit_code == 0
    assert report[operation].judged == (12 if dtype is None else 6)


def test_a_wrong_program_fails():
    report = verify("sp", answered("sp", change=lambda u: u + 1).encode())
    assert report.exit_code == 1
    assert report["sp"].failed == 6


def test_17_decimal_digits_lose_nothing():
    text = []
    for line in answered("sp").splitlines():
        words = line.split()
        decimal = [f"{float.fromhex(w):.17g}" if "0x" in w else w for w in words]
        text.append(" ".join(decimal))
    assert verify("sp", "\n".join(text).encode()).exit_code == 0


def test_a_missing_case_is_an_error():
    whole = answered("sp").split("case ")
    report = verify("sp", "case ".join(whole[:3] + whole[4:]).encode())
    assert report["sp"].errors == {"missing": 1}
    assert report.exit_code == 3


def test_a_program_that_ends_early_is_noticed_with_the_number_of_cases():
    text = answered("sp", 4).encode()
    assert verify("sp", text).exit_code == 0
    assert verify("sp", text, cases=6)["sp"].errors == {"missing": 2}
    assert verify("sp", b"", cases=2)["sp"].errors == {"missing": 2}
    assert verify("sp", b"").exit_code == 3


def test_a_text_that_breaks_off_is_an_error_with_its_place():
    text = answered("sp")
    report = verify("sp", text[: len(text) * 2 // 3].encode(), cases=6)
    assert report.exit_code == 3
    assert "the text ends where" in report.notes[0]


@pytest.mark.parametrize("cases", [None, 6])
@pytest.mark.parametrize(
    "more", ["Segmentation fault", "case sp 0 0 float64 omega float64 0 7 end", "case sp 0 99 float16 end", "caseless"]
)
def test_nothing_passes_beside_what_cannot_be_read(more, cases):
    """Rubbish after the answers, a second answer of a case, a wrong word: an error, even where the rest passes."""
    text = answered("sp")
    assert verify("sp", text.encode(), cases).exit_code == 0
    report = verify("sp", f"{text}\n{more}\n".encode(), cases)
    assert (report.exit_code, report["sp"].verdict, report["sp"].errors["unreadable"]) == (3, "error", 1)
    assert "could not be read to its end" in terminal.text(report)
    wrong = answered("sp", change=lambda u: u + 1)
    assert verify("sp", f"{wrong}\n{more}\n".encode(), cases).exit_code == 1


def test_one_case_of_a_seed():
    report = verify("sp", answered("sp", only=17, seed=3).encode())
    assert report["sp"].judged == 1
    assert report.exit_code == 0


def test_declarations():
    text = b"declare SOLVER eigh declare ARITHMETIC.depth 4 declare DTYPES float32 case sp 0 0"
    found = read_answers(text).declarations
    assert found == {"SOLVER": "eigh", "ARITHMETIC": {"depth": 4}, "DTYPES": ["float32"]}
    with pytest.raises(UsageError, match="SOLVER"):
        verify("sp", b"declare SOLVER magic " + answered("sp").encode())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"hello", "expected case"),
        (b"case tea 0 0", "no operation"),
        (b"case sp zero 0", "a seed"),
        (b"case sp 0 0 omega complex64 0 1", "dtype 'complex64'"),
        (b"case sp 0 0 omega float64 9", "has 9 axes"),
        (b"case sp 0 0 omega float64 1 -1", "must be a list"),
        (b"case sp 0 0 omega float64 1 99999999999", "needs more than"),
        (b"case sp 0 0 omega float64 1 2 1.0", "the text ends"),
        (b"case sp 0 0 omega float64 0 1_0", "expected a float"),
        (b"case sp 0 0 omega float64 0 .", "expected a float"),
        (b"case sp 0 0 omega int8 0 300", "does not hold"),
        (b"case sp 0 0 omega float64 0 1 omega float64 0 1", "given twice"),
        (b"case sp 0 0 end case sp 0 0 end", "answered twice"),
        (b"case sp 0 0 omega float64 0 " + b"1" * 100, "longer than 64"),
        ("case sp 0 0 ömega".encode(), "no ASCII"),
    ],
)
def test_what_cannot_be_read_is_said(text, words):
    assert words in read_answers(text).trouble


@pytest.mark.parametrize(("text", "words"), [
    (b"case lcg 0 0", "and sp is to be verified"),
    (b"case sp 0 0 end case sp 1 0", "one seed at a time"),
    (b"case sp 0 0 end case sp 0 900000", "the highest index"),
])
def test_wrong_usage(text, words):
    with pytest.raises(UsageError, match=words):
        verify("sp", text)


def test_words_of_floats():
    numbers = np.array([0.0, -0.0, 1.5, -1e-310, np.inf, -np.inf, np.nan, 2.0**-1074, 1e308])
    [line] = entry("x", numbers)
    named = read_answers(f"case sp 0 0 {line}".encode()).by_case["sp", 0, 0, "float64"]
    assert named["x"].tobytes() == numbers.tobytes()
    assert np.isinf(read_answers(b"case sp 0 0 x float64 0 1e999").by_case["sp", 0, 0, "float64"]["x"])


def test_states_of_an_optimizer():
    given = {"u": np.zeros((2, 3)), "state.1.t": np.array(1), "state.2.t": np.array(2), "state.2.xi": np.ones(3)}
    found = textmode.named_results("topk_sgd", given, "float64")
    assert [sorted(s) for s in found["states"]] == [["t"], ["t", "xi"]]
    assert textmode.named_results("topk_sgd", {"u": np.zeros((2, 3))}, "float64")["states"] is None


def test_bfloat16_is_written_as_numbers():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    case = Case("sp", "generic", "", 0, 0, {"values": np.array([1.5], ml_dtypes.bfloat16)})
    assert "values bfloat16 1 1 0x1.8000000000000p+0" in text_of(case)
    [named] = read_answers(text_of(case).encode()).by_case.values()
    assert named["values"].dtype.name == "bfloat16"
