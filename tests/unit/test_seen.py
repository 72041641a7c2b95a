"""What a model was trained on: by its run, by its warm-up's own dialogues, and by the runs that it began from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mulligan.config import Recipe, parse_recipe
from mulligan.runlog import RunFolder
from mulligan.seen import seen_by_model, seen_by_run
from mulligan.tasks import load_problems


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sums(path: Path, *numbers: int) -> str:
    return lines(path, *({"question": f"1 + {n}", "answer": str(1 + n)} for n in numbers))


def recipe(train: str, **tables: Any) -> Recipe:
    return parse_recipe({"name": "r", "attempts": "uniform(1,3)", "problems": {"train": train}, "model": {"path": "tiny:"}} | tables, "r")


def ended(folder: Path, one: Recipe) -> str:
    """The model folder of a run of this recipe."""
    RunFolder.create(folder, one).model.mkdir(parents=True)
    return str(folder / "model")


@pytest.fixture
def asked(tmp_path: Path):
    return load_problems(sums(tmp_path / "asked.jsonl", 1, 2, 3, 4)).problems


def warning(seen: Any, asked: Any) -> str | None:
    return seen.warning("asked", asked)


def test_the_problems_of_a_run_and_of_those_before_it_are_seen(tmp_path: Path, asked: Any):
    first = ended(tmp_path / "a", recipe(sums(tmp_path / "1.jsonl", 1, 7)))
    second = ended(tmp_path / "b", recipe(sums(tmp_path / "2.jsonl", 2), model={"path": first}))
    third = recipe(sums(tmp_path / "3.jsonl", 8), model={"path": second})
    assert warning(seen_by_run(third), asked) == "asked: 2 of 4 problems are trained on as well: not held out"
    assert warning(seen_by_model(ended(tmp_path / "c", third)), asked) == warning(seen_by_run(third), asked)
    assert warning(seen_by_model(first), asked) == "asked: 1 of 4 problems are trained on as well: not held out"


def test_of_a_model_of_no_run_nothing_is_known(tmp_path: Path, asked: Any):
    (tmp_path / "model").mkdir()
    for path in (str(tmp_path / "model"), "ORG/NAME", "tiny:", str(tmp_path / "nothing")):
        assert warning(seen_by_model(path), asked) is None
    assert warning(seen_by_run(recipe(sums(tmp_path / "1.jsonl", 9))), asked) is None


def test_another_answer_to_the_same_question_is_another_problem(tmp_path: Path, asked: Any):
    seen = seen_by_run(recipe(lines(tmp_path / "1.jsonl", {"question": "1 + 1", "answer": "3"})))
    assert warning(seen, asked) is None


def test_the_dialogues_of_a_warm_up_are_seen(tmp_path: Path, asked: Any):
    def dialogue(*user: str) -> dict[str, Any]:
        return {"messages": [turn for text in user for turn in ({"role": "user", "content": text}, {"role": "assistant", "content": "1 + 4"})]}

    data = lines(tmp_path / "d.jsonl", dialogue("1 + 1", "no, try again"), dialogue("What is 1 + 2 in 2 tries?"), dialogue("What is 1 + 3 in 9 tries?"))
    source, protocol = sums(tmp_path / "1.jsonl", 9), {"question": "What is {question} in {n} tries?"}
    used = recipe(source, warmup={"steps": 1, "data": data}, protocol=protocol)
    assert warning(seen_by_run(used), asked) == "asked: 2 of 4 problems are trained on as well: not held out"
    assert warning(seen_by_run(recipe(source, warmup={"steps": 0, "data": data}, protocol=protocol)), asked) is None


def test_what_cannot_be_read_any_more_is_told(tmp_path: Path, asked: Any):
    source = sums(tmp_path / "1.jsonl", 1)
    first = ended(tmp_path / "a", recipe(source))
    second = recipe(sums(tmp_path / "2.jsonl", 2), model={"path": first})
    Path(source).unlink()
    seen = seen_by_run(second)
    assert warning(seen, asked) == "asked: 1 of 4 problems are trained on as well: not held out"
    (doubt,) = seen.doubts
    assert doubt.startswith(f"whether the problems were trained on is not known: {source}: ")
    (tmp_path / "a" / "recipe.json").write_text("{")
    for torn in (seen_by_run(second), seen_by_model(first)):
        assert "whether the problems were trained on is not known" in torn.doubts[0]
        assert "recipe.json" in torn.doubts[0]
