"""The course's exercises: a right answer passes, the wrong ones that people give do not, nor none at all."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import course_solutions
import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "course"
spec = importlib.util.spec_from_file_location("exercises", FOLDER / "exercises.py")
exercises = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exercises)

ANSWERS = {name: given for name, given in vars(course_solutions).items() if callable(given)}
WRONG = {
    wrong: max((name for name in exercises.EXERCISES if wrong.startswith(name)), key=len)
    for wrong in ANSWERS
    if wrong not in exercises.EXERCISES
}


@pytest.mark.parametrize("name", exercises.EXERCISES)
def test_a_right_answer_passes(name, capsys):
    exercises.check(name, ANSWERS[name], strict=True)
    assert capsys.readouterr().out == f"{name}: right.\n"


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_answer_does_not(wrong, capsys):
    exercises.check(WRONG[wrong], ANSWERS[wrong])
    said = capsys.readouterr().out
    assert said.startswith(f"{WRONG[wrong]}: not yet. ") and said.count("\n") == 1
    with pytest.raises(exercises.NotYet):
        exercises.check(WRONG[wrong], ANSWERS[wrong], strict=True)


def test_every_exercise_has_wrong_answers():
    assert set(WRONG.values()) == set(exercises.EXERCISES)


@pytest.mark.parametrize("name", exercises.EXERCISES)
def test_no_answer_is_said_to_be_none(name, capsys):
    exercises.check(name, lambda *given: None)
    assert "returns nothing so far" in capsys.readouterr().out


def test_what_is_no_answer_at_all(capsys):
    def fails(*given):
        raise ZeroDivisionError("division by zero")

    exercises.check("output_size", fails)
    assert "output_size(5, 3, 1, 0) raises ZeroDivisionError: division by zero" in capsys.readouterr().out
    exercises.check("output_size", lambda *given: "three")
    assert "it returns str, which is no number" in capsys.readouterr().out
    exercises.check("softmax", lambda x: x[0])
    assert "shape (10,), wanted is (4, 10)" in capsys.readouterr().out
    with pytest.raises(KeyError, match="there are output_size"):
        exercises.check("output", fails)


def test_strict_by_the_environment(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_STRICT", "1")
    with pytest.raises(exercises.NotYet, match="output_size: "):
        exercises.check("output_size", course_solutions.output_size_rounded_up)
    monkeypatch.setenv("COURSE_STRICT", "0")
    exercises.check("output_size", course_solutions.output_size_rounded_up)
    assert "not yet" in capsys.readouterr().out
