"""A recipe is checked whole before anything heavy is loaded: every fault at once, and what a run of it will need."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_dialogues import FakePlayer

from mulligan.config import Recipe, parse_recipe
from mulligan.errors import ConfigError, ContextOverflow, DataError, ModelError
from mulligan.evaluation import read_evaluation
from mulligan.grading import make_grader
from mulligan.model import load_policy, load_tokenizer
from mulligan.model.tiny import tiny_tokenizer
from mulligan.plan import Plan, check_play, light_chat, load_checked, make_plan, shown_fields, write_set_aside
from mulligan.protocol import Protocol
from mulligan.types import Attempt, Outcome, Problem

TABLE: dict[str, Any] = {
    "model": {"path": "tiny:", "tiny": {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}},
    "problems": {"train": "builtin:guess?low=1&high=4&n=12", "eval": ["builtin:guess?low=1&high=4&split=test"]},
    "protocol": {"system": "", "question": "{n} {question}", "feedback": "wrong {n}", "max_attempt_tokens": 5, "max_dialogue_tokens": 40},
}


def recipe(**changes: Any) -> Recipe:
    """TABLE with dotted keys changed; `__` stands for the dot."""
    table = json.loads(json.dumps(TABLE))
    for key, value in changes.items():
        node = table
        *parents, last = key.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return parse_recipe(table)


def jsonl(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


# ---------------------------------------------------------------------------------------------------------------- what it says


def test_a_plan():
    plan = make_plan(recipe())
    assert len(plan.problems) == 12
    assert [len(s) for s in plan.eval_sets] == [4]
    assert plan.longest_prompt == 6  # <user> 5 guess 1 4 <answer>
    assert plan.set_aside == {"builtin:guess?low=1&high=4&n=12": (), "builtin:guess?low=1&high=4&split=test": ()}
    assert plan.problems_described == "12 problems from `builtin:guess?low=1&high=4&n=12`"


def test_parameters_are_those_of_the_model(tmp_path: Path):
    plan = make_plan(recipe())
    assert plan.parameters == load_policy(plan.recipe.model, folder=tmp_path / "m").num_parameters


def test_limits():
    plan = make_plan(recipe(problems__limit=5, eval={"limit": 3}))
    assert (len(plan.problems), len(plan.eval_sets[0])) == (5, 3)
    assert len(make_plan(recipe(eval={"limit": 0})).eval_sets[0]) == 4


def test_what_fails_against_itself_is_set_aside(tmp_path: Path):
    source = jsonl(tmp_path / "p.jsonl", {"question": "1 + 1", "answer": "2"}, {"question": "1 + 2", "answer": "three apples"}, {"question": "1 + 3", "answer": "4"})
    plan = make_plan(recipe(problems__train=source + "?grader=numeric", problems__eval=[]))
    assert [p.answer for p in plan.problems] == ["2", "4"]
    (aside,) = plan.set_aside[source + "?grader=numeric"]
    assert aside.problem.answer == "three apples"
    assert "'three apples' does not pass its own grader" in aside.reason


def test_what_is_set_aside_is_listed(tmp_path: Path):
    source = jsonl(tmp_path / "p.jsonl", {"question": "1 + 1", "answer": "2"}, {"question": "1 + 2", "answer": "three apples"}) + "?grader=numeric"
    plan = make_plan(recipe(problems__train=source, problems__eval=[]))
    write_set_aside(tmp_path, [plan.train_set])
    (row,) = [json.loads(line) for line in (tmp_path / "set_aside.jsonl").read_text().splitlines()]
    assert row.keys() == {"source", "id", "question", "answer", "reason"}
    assert (row["question"], row["answer"]) == ("1 + 2", "three apples")


def test_problems_that_are_not_held_out_are_remarked_on():
    assert make_plan(recipe(problems__eval=["builtin:guess?low=1&high=4&split=test"])).remarks == [
        "builtin:guess?low=1&high=4&split=test: 4 of 4 problems are trained on as well: not held out"
    ]


def test_a_dropped_system_turn_is_remarked_on(tmp_path: Path):
    prompt = [{"role": "system", "content": "add"}, {"role": "user", "content": "1 + 1"}]
    source = jsonl(tmp_path / "p.jsonl", {"prompt": prompt, "answer": "2"})
    (remark,) = make_plan(recipe(problems__train=source, problems__eval=[])).remarks
    assert remark.startswith(f"{source}: the system turn of 1 question is dropped")


def test_feedback_is_tried_on_a_real_verdict():
    assert make_plan(recipe(protocol__feedback="{hint} {n}"))
    with pytest.raises(ConfigError, match=r"protocol\.feedback: unknown field \{hnt\}; known fields: .*\{hint\}"):
        make_plan(recipe(protocol__feedback="{hnt} {n}"))
    with pytest.raises(ConfigError, match=r"protocol\.feedback: unknown field \{hint\}"):
        make_plan(recipe(problems__train="builtin:guess?n=4 + builtin:readings?n=4", protocol__feedback="{hint} {n}", protocol__max_dialogue_tokens=80))


def test_a_feedback_function_is_tried_on_a_real_verdict(monkeypatch: pytest.MonkeyPatch):
    """What it failed with is told and refuses nothing: it may read in a real attempt what a made-up one lacks."""
    tried: list[tuple[Any, ...]] = []

    def say(problem: Problem, attempts: Sequence[Attempt], attempts_left: int) -> str:
        tried.append((attempts[-1].text, attempts[-1].outcome, attempts_left))
        return attempts[-1].verdict.fields["hint"]

    def fail(problem: Problem, attempts: Sequence[Attempt], attempts_left: int) -> str:
        raise KeyError("no such hint")

    def say_nothing(problem: Problem, attempts: Sequence[Attempt], attempts_left: int) -> None: ...

    for function in (say, fail, say_nothing):
        monkeypatch.setattr("mulligan.tasks.builtin.guess.said", function, raising=False)
        changes = {"problems__eval": [], "protocol__feedback": "mulligan.tasks.builtin.guess:said"}
        remarks = make_plan(recipe(**changes)).remarks
        if function is say:
            assert not remarks
            assert [(outcome, left) for _, outcome, left in tried] == [(Outcome.WRONG, 1)]
            continue
        (remark,) = remarks
        said = "raised KeyError: 'no such hint' on the made-up answer '\\\\boxed{" if function is fail else "returned NoneType: it must return a str (tried on the made-up answer"
        assert said in remark
        assert not make_plan(recipe(**changes, protocol__history="none")).remarks, "nothing is said after an attempt"


def test_what_an_evaluation_will_meet_is_found_before_it_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def of(**changes: Any) -> list[str]:
        one = recipe(**changes)
        grader = make_grader(one.grader)
        try:
            return check_play(one, [load_checked(source, None, 0, grader) for source in one.problems.eval], grader)
        finally:
            grader.close()

    long = jsonl(tmp_path / "p.jsonl", {"question": "1 + 1", "answer": "2"}, {"question": " + ".join("1" * 30), "answer": "30"})
    assert of(protocol__feedback="{hint} {n}") == []
    with pytest.raises(ConfigError, match=r"protocol\.feedback: unknown field \{hnt\}"):
        of(protocol__feedback="{hnt} {n}")
    (doubt,) = of(problems__eval=[long])
    assert re.search(r"p\.jsonl: the prompt of problem .* has \d+ tokens and a dialogue may have 40: raise .*: until then it counts as unsolved", doubt)
    monkeypatch.setattr("mulligan.tasks.builtin.guess.said", lambda *_: None, raising=False)
    (doubt,) = of(protocol__feedback="mulligan.tasks.builtin.guess:said")
    assert "returned NoneType: it must return a str (tried on the made-up answer" in doubt


def test_the_tokenizer_that_is_checked_is_that_of_the_revision(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr("mulligan.plan.load_tokenizer", lambda *where: asked.append(where) or tiny_tokenizer())
    light_chat(recipe(model__path="ORG/NAME", model__revision="abc"))
    light_chat(recipe(model__path="ORG/NAME", model__revision="abc", model__tokenizer="ORG/CHAT"))
    assert asked == [("ORG/NAME", "abc"), ("ORG/CHAT",)]


def test_8_bit_rollouts_where_there_are_none():
    with pytest.raises(ModelError, match=r"this model computes in bfloat16: set sampling\.rollout_precision = 'exact'"):
        make_plan(recipe(model__dtype="bfloat16", sampling__rollout_precision="int8"))


def test_a_device_that_is_not_here():
    with pytest.raises(ModelError, match=r"model\.device = 'foo' is not available here"):
        make_plan(recipe(model__device="foo"))


def test_a_set_of_which_nothing_is_left(tmp_path: Path):
    source = jsonl(tmp_path / "p.jsonl", {"question": "1 + 2", "answer": "three apples"}) + "?grader=numeric"
    with pytest.raises(DataError, match=r"p\.jsonl\?grader=numeric: no gold answer passes its own grader"):
        make_plan(recipe(problems__train=source, problems__eval=[]))


# --------------------------------------------------------------------------------------------------------------------- hashes


def test_data_hashes():
    def hashes(**changes: Any) -> list[str]:
        return list(make_plan(recipe(**changes)).data_hashes.values())

    base = hashes()
    assert len(base) == 2
    assert all(len(h) == 32 for h in base)
    assert hashes() == base
    other_seed = hashes(seed=1)
    assert other_seed[0] != base[0], "the seed draws the training problems"
    assert other_seed[1] == base[1], "and leaves the held-out ones as they are"
    assert hashes(problems__limit=11)[0] != base[0]


def test_data_hashes_see_content_and_order(tmp_path: Path):
    rows = [{"question": "1 + 1", "answer": "2"}, {"question": "1 + 2", "answer": "3"}]

    def hash_of(name: str, *chosen: dict[str, Any]) -> str:
        source = jsonl(tmp_path / name, *chosen)
        return make_plan(recipe(problems__train=source, problems__eval=[])).data_hashes[source]

    base = hash_of("a.jsonl", *rows)
    assert hash_of("b.jsonl", *rows) == base, "not the name of the file"
    assert hash_of("c.jsonl", *rows[::-1]) != base
    assert hash_of("d.jsonl", rows[0], {"question": "1 + 2", "answer": "3.0"}) != base


# --------------------------------------------------------------------------------------------------------------------- needs


def test_tokens_per_step():
    assert make_plan(recipe(train={"problems_per_step": 3, "group_size": 5})).tokens_per_step == 3 * 5 * 40


def test_memory_by_hand():
    plan = make_plan(recipe(train={"problems_per_step": 4, "group_size": 2, "micro_batch_tokens": 100}, sampling={"max_rows": 6}))
    vocabulary = len(tiny_tokenizer())
    per_token = 2 * 2 * 2 * 16  # keys and values, layers, heads, head size
    activations = 2 * (10 * 32 + 4 * 64)  # layers, width, width of the feed-forward
    assert plan.memory_bytes == 4 * (5 * plan.parameters + 4 * 100 * vocabulary + 100 * activations + 6 * 40 * per_token)


@pytest.mark.parametrize(
    "more",
    [
        {"model__tiny__layers": 4},
        {"advantage": {"name": "gae"}},
        {"loss": {"kl": 0.1}},
        {"train": {"micro_batch_tokens": 8192}},
        {"train": {"group_size": 32}, "sampling": {"max_rows": 512}},
        {"protocol__max_dialogue_tokens": 60},
    ],
)
def test_memory_reacts(more: dict[str, Any]):
    base = make_plan(recipe()).memory_bytes
    assert base > 0
    assert make_plan(recipe(**more)).memory_bytes > base


def test_a_head_as_critic_needs_no_second_model():
    separate, head = (make_plan(recipe(advantage={"name": "gae"}, critic={"kind": kind})).memory_bytes for kind in ("separate", "head"))
    assert separate - head == 4 * 4 * make_plan(recipe()).parameters


# --------------------------------------------------------------------------------------------------------------------- faults


def test_every_fault_at_once(tmp_path: Path):
    faulty = recipe(
        model__path=str(tmp_path / "nowhere"),
        problems={"train": "builtin:gues", "eval": [str(tmp_path / "missing.jsonl"), "gym:no_such_task"]},
        protocol__question="{n} {query}",
        eval={"attempts": "0-3"},
        warmup={"steps": 3, "data": str(tmp_path / "none.jsonl")},
    )
    with pytest.raises(ConfigError) as caught:
        make_plan(faulty)
    text = "\n".join(caught.value.faults)
    for piece in (
        f"{tmp_path}/nowhere: no such model folder",
        "there is no built-in task 'gues'; did you mean 'guess'",
        "missing.jsonl: no such file",
        "no_such_task",
        "protocol.question: unknown field {query}",
        "budget",
        "none.jsonl: no such file (warmup.data)",
    ):
        assert piece in text, piece
    assert all(line.strip() for line in caught.value.faults)


def test_a_single_fault_keeps_its_type(tmp_path: Path):
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        make_plan(recipe(problems__train=str(tmp_path / "missing.jsonl")))
    with pytest.raises(ModelError, match=r"\./nowhere: no such model folder"):
        make_plan(recipe(model__path="./nowhere"))


def test_a_folder_without_weights(tmp_path: Path):
    folder = tmp_path / "tiny"
    load_policy(recipe().model, folder=folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"tiny: no weights \(\*\.safetensors\) in this folder"):
        make_plan(recipe(model__path=str(folder)))


def test_a_tokenizer_beyond_the_models_vocabulary(tmp_path: Path):
    """Only tokens that are met count: a tokenizer may have more than the model."""
    tokens = tmp_path / "tokens"
    tiny_tokenizer().save_pretrained(tokens)
    tokenizer = load_tokenizer(str(tokens))
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(tokens)
    assert make_plan(recipe(model__tokenizer=str(tokens))).longest_prompt == 6
    source = jsonl(tmp_path / "p.jsonl", {"question": "1 + 1", "answer": "2"}, {"question": "1 + zebra", "answer": "2"})
    data = jsonl(tmp_path / "d.jsonl", {"messages": [{"role": "user", "content": "3 guess 1 4"}, {"role": "assistant", "content": "zebra"}]})
    for changes in ({"problems__train": source}, {"protocol__hidden_feedback": "zebra"}, {"warmup": {"steps": 1, "data": data}}):
        with pytest.raises(ModelError, match=r"tokens writes tokens that the model, with a vocabulary of 49, does not have: set model\.tokenizer to one of the same vocabulary"):
            make_plan(recipe(model__tokenizer=str(tokens), **changes))


def test_an_unknown_grader():
    with pytest.raises(ConfigError, match="grader 'maths' is not known: use math, numeric"):
        make_plan(recipe(grader={"kind": "maths"}))


def test_the_warm_ups_dialogues_are_read(tmp_path: Path):
    good = {"messages": [{"role": "user", "content": "3 guess 1 4"}, {"role": "assistant", "content": "\\boxed{2}"}]}
    broken = jsonl(tmp_path / "broken.jsonl", good, {"messages": good["messages"][:1]})
    with pytest.raises(DataError, match=r"broken\.jsonl, line 2: "):
        make_plan(recipe(warmup={"steps": 1, "data": broken}))
    long = jsonl(tmp_path / "long.jsonl", good, {"messages": [good["messages"][0], {"role": "assistant", "content": "1 " * 60}]})
    with pytest.raises(ContextOverflow, match=r"long\.jsonl: dialogue 2 has 67 tokens and the model's context 64"):
        make_plan(recipe(warmup={"steps": 1, "data": long}))
    make_plan(recipe(warmup={"steps": 1, "data": jsonl(tmp_path / "good.jsonl", good)}))


def test_an_evaluation_set_given_twice():
    source = TABLE["problems"]["eval"][0]
    with pytest.raises(ConfigError, match=r"problems\.eval: .* is given twice: drop one"):
        make_plan(recipe(problems__eval=[source, source]))


def test_a_prompt_too_long(tmp_path: Path):
    source = jsonl(tmp_path / "p.jsonl", {"question": "1 + 1", "answer": "2"}, {"question": "1 + " * 20 + "1", "answer": "21"})
    with pytest.raises(ContextOverflow, match=r"p\.jsonl: the prompt of problem [0-9a-f]{16} has 44 tokens and a dialogue may have 40: raise protocol.max_dialogue_tokens"):
        make_plan(recipe(problems__train=source))
    assert make_plan(recipe(problems__train=source, protocol__max_dialogue_tokens=45)).longest_prompt == 44


def test_the_models_context_bounds_the_prompt_too(tmp_path: Path):
    source = jsonl(tmp_path / "p.jsonl", {"question": "1 + " * 40 + "1", "answer": "41"})
    with pytest.raises(ContextOverflow, match="has 84 tokens and a dialogue may have 64"):
        make_plan(recipe(problems__train=source, protocol__max_dialogue_tokens=1000))


def test_long_prompts_are_found_among_very_many():
    """Beyond 5,000 problems only one per length of question is looked at."""
    plan = make_plan(recipe(problems__train="builtin:readings?n=6000", problems__eval=[]))
    assert isinstance(plan, Plan)
    assert plan.longest_prompt == 10  # <user> 5 d o d o d o d <answer>


# ----------------------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_is_checked_beforehand():
    with pytest.raises(ConfigError, match=r"eval: controls change what a second attempt sees: evaluate with 2 attempts or more"):
        make_plan(recipe(eval={"attempts": "1", "controls": "all"}))
    assert make_plan(recipe(eval={"attempts": "1-2", "controls": "all"}))
    with pytest.raises(ConfigError, match=r"attempts: '5-1': the range 5-1 runs backwards"):
        make_plan(recipe(eval={"attempts": "5-1"}))


@pytest.mark.parametrize(
    ("feedback", "shown"),
    [
        ("verdict", frozenset()),
        ("verdict and attempts left", frozenset()),
        ("wrong {n}", frozenset()),
        ("Try again.", frozenset()),
        ("{hint} {n}", frozenset({"hint"})),
        ("{bulls} and {cows}, {answer}", frozenset({"bulls", "cows"})),
        ("os.path:join", None),
    ],
)
def test_what_the_feedback_shows(feedback: str, shown: frozenset[str] | None):
    settled = recipe(protocol__feedback=feedback)
    assert shown_fields(Protocol(settled.protocol, settled.attempts, settled.reward)) == shown
    blind = settled.protocol.model_copy(update={"history": "none"})
    assert shown_fields(Protocol(blind, settled.attempts, settled.reward)) == frozenset()


def evaluated(folder: Path, **changes: Any) -> dict[str, Any]:
    """The figures of the recipe's evaluation set, from scripted dialogues: the first two numbers are found, the others not."""
    plan = make_plan(recipe(**changes))
    player = FakePlayer(lambda i, k, g: ["c"] if i < 2 else ["w"] * k)
    player.protocol = Protocol(plan.recipe.protocol, plan.recipe.attempts, plan.recipe.reward)
    metrics = plan.evaluate(player, folder, model="m")
    (figures,) = read_evaluation(folder)["problem_sets"].values()
    assert metrics == {f"builtin:guess?low=1&high=4&split=test/accuracy@{k}": 0.5 for k in figures["accuracy"]}
    return figures


def test_the_evaluation_of_a_run(tmp_path: Path):
    figures = evaluated(tmp_path, attempts="uniform(1,3)", eval={"samples": 2, "temperatures": [0.5, 1.0], "controls": "history_blind,false_wrong"})
    assert figures["accuracy"].keys() == {"1", "2", "3", "5"}
    assert figures["trained_attempts"] == 3
    assert figures["rise"] == [1, 3]
    assert figures["attempts_budget"] == 3
    assert figures["pass_temperatures"].keys() == {"0.5", "1.0"}
    assert figures["controls"].keys() == {"history_blind"}
    assert figures["ceilings"]["best possible"] == {"1": 0.25, "2": 0.5, "3": 0.75, "5": 1.0}, "the feedback gives no hint"
    assert evaluated(tmp_path, protocol__feedback="{hint} {n}")["ceilings"]["best possible"]["2"] == 0.75


def test_the_evaluation_of_a_run_costs_no_more_than_it_is_asked_for(tmp_path: Path):
    figures = evaluated(tmp_path, attempts="fixed(1)")
    assert figures["accuracy"].keys() == {"1", "3"}
    assert (figures["samples"], figures["pass_at_k"], figures["controls"], figures["equal_tokens"], figures["rivals"]) == (0, {}, {}, {}, {})
