"""Every solution is accepted, every starter and every typical wrong answer is refused, with the right line."""

import inspect
import json
import time

import numpy as np
import pytest

from efcp_ref.exercises import check, hint, ids, solution, starter, statement
from efcp_ref.exercises.book import exercise
from efcp_ref.paper.printed import lines
from tests.exercises.wrong import WRONG, endless

CASES = [(id, wrong, line) for id in ids() for wrong, line in WRONG[id]]


def compiled(source, name):
    """The function that a text defines, in a namespace that knows what an answer may import."""
    import math
    from fractions import Fraction

    space = {"np": np, "math": math, "Fraction": Fraction}
    exec(source, space)
    return space[name]


@pytest.mark.parametrize("id", ids())
def test_the_solution_is_accepted(id):
    answer = check(id, compiled(solution(id), exercise(id).solve.__name__))
    assert answer, str(answer)
    assert answer.tried >= 50


@pytest.mark.parametrize("id", ids())
def test_the_starter_is_refused(id):
    answer = check(id, compiled(starter(id), exercise(id).solve.__name__))
    assert not answer
    assert answer.line == id
    assert "NotImplementedError" in answer.reason


@pytest.mark.parametrize(("id", "wrong", "line"), CASES, ids=[f"{id} {n}" for n, (id, _, _) in enumerate(CASES)])
def test_a_typical_wrong_answer_is_told_its_line(id, wrong, line):
    answer = check(id, wrong)
    assert not answer
    assert answer.line == line, str(answer)
    assert answer.variable
    assert answer.arguments
    if not answer.reason:  # a variable that has the right shape shows both of its values
        assert answer.got != answer.expected or answer.got is None


def test_at_least_three_wrong_answers_each_and_all_algorithms():
    assert set(WRONG) == set(ids())
    assert min(map(len, WRONG.values())) >= 3
    assert {id.split(":")[0] for id in ids()} == {"1", "2", "3", "4", "5", "6", "7", "K", "W", "S1"}
    assert len(ids()) >= 20


@pytest.mark.parametrize("id", ids())
def test_an_exercise_is_a_printed_line_with_statement_hint_and_starter(id):
    assert lines()[id].latex
    assert len(statement(id)) > 60
    assert len(hint(id)) > 30
    solve = exercise(id).solve
    names = ", ".join(inspect.signature(solve).parameters)
    assert starter(id).startswith(f"def {solve.__name__}({names}):")
    assert solution(id) not in starter(id)


def test_the_smallest_input_is_small():
    answer = check("1:6", WRONG["1:6"][0][0])  # signed Top-k: one negative entry and one that is dropped for it
    assert len(answer.arguments["a"]) == 2
    assert answer.arguments["k"] == 1
    assert sorted(np.abs(answer.arguments["a"]).tolist()) in ([0, 1], [1, 2])
    assert "signed Top-k" in answer.explained


def test_the_answer_reads_well_in_a_terminal_and_in_a_notebook():
    answer = check("2:14", WRONG["2:14"][0][0])
    text = str(answer)
    assert text.splitlines()[0] == "2:14 refused"
    for part in ("paper line", "first differs  mem[1, ", "yours", "the paper's", "smallest input", 'hint("2:14")'):
        assert part in text
    page = answer._repr_html_()
    assert page.startswith('<table style="color:inherit"><caption>Exercise 2:14: refused</caption>')
    assert page.count("<tr>") == page.count("</tr>") == len(answer.rows())
    assert "inputs tried" in str(check("2:14", exercise("2:14").solve))


def test_an_endless_loop_is_refused_in_time():
    began = time.monotonic()
    for id in ("2:8", "1:6"):
        answer = check(id, endless, seconds=0.1)
        assert not answer
        assert "longer than 0.1 s" in answer.reason
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("result", [None, "text", 1.0, (1, 2, 3), object(), [[]], np.array([np.nan])])
@pytest.mark.parametrize("id", ["1:6", "2:14", "3:15", "W:3"])
def test_a_result_of_another_kind_is_refused(id, result):
    assert not check(id, lambda *given: result)


def test_an_exception_is_shown():
    def broken(*given):
        raise ZeroDivisionError("one over zero")

    assert "ZeroDivisionError" in check("2:14", broken).reason
    assert "ZeroDivisionError" in check("2:11", broken).reason


class Stubborn:
    def __array__(self, *given, **options):
        raise RuntimeError("no array")


@pytest.mark.parametrize("id", ["1:6", "2:14", "3:15", "W:3", "S1:5"])
def test_a_hostile_answer_is_refused_and_the_checker_lives(id):
    """By the oracle's criterion (1:6, W:3) or by stages: exits, calls itself for ever, cannot be read."""
    import sys

    def leaves(*given):
        sys.exit(3)

    def falls(*given):
        return falls(*given)

    told = [check(id, function) for function in (leaves, falls, lambda *given: Stubborn())]
    assert not any(told)
    for word, answer in zip(("3", "RecursionError", "Stubborn"), told, strict=True):
        assert word in answer.reason


@pytest.mark.filterwarnings("error")
def test_a_complex_result_is_refused():
    for id in ("S1:5", "2:11"):
        solve = exercise(id).solve
        answer = check(id, lambda *given, solve=solve: solve(*given[: len(inspect.signature(solve).parameters)]) + 1j)
        assert not answer
        assert "real" in answer.reason


def test_an_answer_that_changes_its_input_is_told_which():
    def spoiling(solve):
        def spoils(*given):
            result = solve(*given)
            given[0][...] = 7
            return result

        return spoils

    for id, name in (("1:6", "a"), ("S1:5", "p")):
        answer = check(id, spoiling(exercise(id).solve))
        assert not answer
        assert f"{name} was" in answer.reason


def test_an_answer_shows_what_the_function_is_given_and_no_more():
    answer = check("2:11", lambda indices, values, g: 0 * values.sum(axis=1))
    assert list(answer.arguments) == ["indices", "values", "g"]


def test_python_lists_are_right_answers_also_where_they_are_empty():
    def kept(a, k, size):
        indices = sorted(range(len(a)), key=lambda i: size(a[i]))[:k]
        return indices, [a[i] for i in indices]

    assert check("1:6", lambda a, k: kept(a, k, lambda x: -abs(x)))
    wrong = check("1:6", lambda a, k: kept(a, k, lambda x: -x))
    assert (bool(wrong), wrong.line, wrong.variable) == (False, "1:6", "indices")
    assert wrong.arguments["k"] > 0
    assert "dtype" not in wrong.reason


def test_bad_use_is_told():
    with pytest.raises(ValueError, match="no exercise '1:99'"):
        check("1:99", len)
    with pytest.raises(ValueError, match="no exercise '1:99', choose from 1:6"):
        hint("1:99")
    with pytest.raises(TypeError, match="function has type int"):
        check("1:6", 3)


def test_the_same_answer_twice():
    wrong = WRONG["3:20"][0][0]
    first, second = check("3:20", wrong), check("3:20", wrong)
    assert str(first) == str(second)
    assert json.dumps(first.rows()) == json.dumps(second.rows())
