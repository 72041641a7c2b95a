"""reasoning-gym's generators as problems, and the check of gold answers against themselves."""

import asyncio
import json

import pytest

from mulligan.errors import ConfigError, DataError
from mulligan.tasks import ProblemSet, SetAside, load_problems, make_problem, self_check
from mulligan.types import Verdict, VerdictKind

gym = pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")


def test_a_generator_and_its_own_scorer():
    found = load_problems("gym:chain_sum?min_terms=2&max_terms=2&size=5")
    assert len(found) == 5
    for problem in found:
        assert problem.grader == "gym"
        assert problem.meta["dataset"] == "chain_sum"
        assert json.loads(json.dumps(dict(problem.meta)))["entry"]["metadata"]["num_terms"] == 2
        score = gym.get_score_answer_fn("chain_sum")
        assert score(answer=problem.answer, entry=problem.meta["entry"]) == 1.0
        assert score(answer=problem.answer + "0", entry=problem.meta["entry"]) < 1.0


def test_seeds_share_no_items():
    def questions(seed):
        return {p.question for p in load_problems(f"gym:chain_sum?size=100&seed={seed}")}

    assert questions(0) == questions(0)
    assert not questions(0) & questions(1)  # reasoning-gym's own neighbouring seeds share 99 of 100
    assert {p.question for p in load_problems("gym:chain_sum?size=100", seed=1)} == questions(1)
    assert {p.question for p in load_problems("gym:chain_sum?size=100&seed=1", seed=5)} == questions(1)


def test_seed_zero_is_the_generators_own():
    own = gym.create_dataset("chain_sum", size=3, seed=0)
    assert [p.question for p in load_problems("gym:chain_sum?size=3")] == [own[i]["question"] for i in range(3)]


def test_size_and_limit():
    assert len(load_problems("gym:chain_sum")) == 500
    assert len(load_problems("gym:chain_sum", limit=3)) == 3
    assert len(load_problems("gym:chain_sum?size=2", limit=3)) == 2
    assert len(load_problems("gym:chain_sum?size=9&limit=4")) == 4


def test_settings_reach_the_generator():
    plain = load_problems("gym:basic_arithmetic?size=40&operators=*&min_terms=2&max_terms=2").problems
    assert all("*" in p.question for p in plain)
    both = "".join(p.question for p in load_problems("gym:basic_arithmetic?size=40&operators=+,*&min_terms=2&max_terms=2"))
    assert "+" in both and "*" in both and "/" not in both
    assert load_problems('gym:basic_arithmetic?size=2&operators=["*"]&min_terms=2&max_terms=2').problems[0].question == plain[0].question


def test_a_generator_without_gold_answers():
    found = load_problems("gym:graph_color?size=3")
    assert [p.answer for p in found] == ["", "", ""]
    assert found.unchecked == 3


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("gym:chain_sums", "did you mean 'chain_sum'"),
        ("gym:chain_sum?min_term=2", "unknown key 'min_term'; did you mean 'min_terms'"),
        ("gym:chain_sum?min_terms=9&max_terms=3", "refuses min_terms=9, max_terms=3"),
        ("gym:chain_sum?min_terms=x", "refuses min_terms='x'"),
        ("gym:chain_sum?size=0", "size=0 must be at least 1"),
        ("gym:chain_sum?seed=x", "seed='x' must be a whole number"),
        ("gym:composite", "name one of them instead"),
    ],
)
def test_wrong_gym_sources(source, part):
    with pytest.raises(ConfigError, match=part):
        load_problems(source)


# ------------------------------------------------------------------------------------------------------------- self-check


class Equality:
    """Knows the box and nothing else; `7` makes it break."""

    def __init__(self):
        self.seen = []

    async def grade(self, problem, text):
        self.seen.append((problem.answer, text))
        await asyncio.sleep(0)
        if problem.answer == "7":
            return Verdict(VerdictKind.UNGRADABLE, reason="deadline")
        return Verdict(VerdictKind.CORRECT if len(problem.answer) == 1 else VerdictKind.WRONG)


def problem_set(*answers, grader="math"):
    return ProblemSet(
        tuple(make_problem(f"q{a}", a, grader, "s", {"i": i}) for i, a in enumerate(answers)),
        "s",
        (SetAside(make_problem("q", "z", "math", "s"), "before"),),
    )


def test_self_check_moves_failures_and_keeps_order():
    grader = Equality()
    checked = asyncio.run(self_check(problem_set("1", "22", "3", "7", "5"), grader, concurrency=2))
    assert [p.answer for p in checked] == ["1", "3", "5"]
    assert [(a.problem.answer, a.reason) for a in checked.set_aside] == [
        ("z", "before"),
        ("22", "gold answer '22' does not pass its own grader (wrong)"),
        ("7", "gold answer '7' does not pass its own grader (ungradable: deadline)"),
    ]
    assert grader.seen == [(a, f"\\boxed{{{a}}}") for a in ("1", "22", "3", "7", "5")]


def test_self_check_grades_repeated_draws_once_but_every_gym_entry():
    grader = Equality()
    assert [p.answer for p in asyncio.run(self_check(problem_set("1", "1", "22", "22"), grader))] == ["1", "1"]
    assert len(grader.seen) == 2
    grader = Equality()
    asyncio.run(self_check(problem_set("1", "1", grader="gym"), grader))
    assert len(grader.seen) == 2


def test_self_check_keeps_what_has_no_gold():
    grader = Equality()
    assert len(asyncio.run(self_check(problem_set("", "1", grader="gym"), grader))) == 2
    assert grader.seen == [("1", "\\boxed{1}")]


def test_self_check_with_nothing_left():
    with pytest.raises(DataError, match="nothing is left"):
        asyncio.run(self_check(problem_set("22"), Equality()))
