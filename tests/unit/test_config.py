"""Recipes: every fault is found at once and says what to write instead."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulligan.cli.training import to_toml
from mulligan.config import AttemptBudget, Recipe, apply_overrides, default_attempts, dump_recipe, load_recipe, parse_recipe
from mulligan.errors import ConfigError
from mulligan.evaluation import parse_attempts

SMALLEST: dict[str, Any] = {"model": {"path": "tiny:"}, "problems": {"train": "builtin:guess"}}
TEXT = '[model]\npath = "tiny:"\n[problems]\ntrain = "builtin:guess"\n'


def faults_of(table: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_recipe({**SMALLEST, **table}, "r.toml")
    return caught.value.faults


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(TEXT)
    return path


def faults_in(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides)
    return caught.value.faults


# ----------------------------------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("text", "weights", "written"),
    [
        ("uniform(1,5)", (0.2,) * 5, "uniform(1,5)"),
        ("  uniform( 2 , 3 ) ", (0.0, 0.5, 0.5), "uniform(2,3)"),
        ("fixed(1)", (1.0,), "fixed(1)"),
        ("fixed(3.0)", (0.0, 0.0, 1.0), "fixed(3)"),
        ("weights(1,0,3)", (0.25, 0.0, 0.75), "weights(1,0,3)"),
    ],
)
def test_budget_forms(text: str, weights: tuple[float, ...], written: str) -> None:
    budget = AttemptBudget.parse(text)
    assert budget.weights == pytest.approx(weights)
    assert str(budget) == written
    assert AttemptBudget.parse(written) == budget


def test_largest_budget_ignores_weights_of_zero() -> None:
    assert AttemptBudget.parse("weights(1,1,0,0)").max_attempts == 2
    assert AttemptBudget.parse("uniform(1,5)").max_attempts == 5


FORMS = "write 'uniform(1,5)', 'fixed(2)' or 'weights(1,1,2)'"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("five", f"'five' is not a budget; {FORMS}"),
        ("uniform(1,5", f"'uniform(1,5' is not a budget; {FORMS}"),
        ("uniform(1,x)", f"'uniform(1,x)' holds something that is not a number; {FORMS}"),
        ("fixed()", f"'fixed()' holds something that is not a number; {FORMS}"),
        ("fixed(1.5)", f"'fixed(1.5)': the number of attempts must be whole; {FORMS}"),
        ("fixed(1,2)", f"'fixed(1,2)' has the wrong number of values; {FORMS}"),
        ("uniform(1)", f"'uniform(1)' has the wrong number of values; {FORMS}"),
        ("fixed(0)", "'fixed(0)': a budget must allow at least 1 attempt"),
        ("uniform(0,3)", "'uniform(0,3)': a budget must allow at least 1 attempt"),
        ("fixed(-2)", "'fixed(-2)': a budget must allow at least 1 attempt"),
        ("uniform(5,1)", "'uniform(5,1)': the upper bound 1 is below the lower bound 5"),
        ("fixed(1001)", "'fixed(1001)': at most 1000 attempts"),
        ("weights(0,0)", "'weights(0,0)': weights must be finite, at least 0, and not all 0"),
        ("weights(1,-1,3)", "'weights(1,-1,3)': weights must be finite, at least 0, and not all 0"),
        ("weights(inf,1)", "'weights(inf,1)': weights must be finite, at least 0, and not all 0"),
        ("weights(nan,1)", "'weights(nan,1)': weights must be finite, at least 0, and not all 0"),
        ("fixed(1e400)", f"'fixed(1e400)': the number of attempts must be whole; {FORMS}"),
        ("uniform(nan,3)", f"'uniform(nan,3)': the number of attempts must be whole; {FORMS}"),
    ],
)
def test_budget_faults_are_faults_of_the_recipe(text: str, fault: str) -> None:
    assert faults_of({"attempts": text}) == [f"r.toml: attempts: {fault}"]


def test_a_budget_may_be_a_plain_number() -> None:
    assert str(parse_recipe({**SMALLEST, "attempts": 3}).attempts) == "fixed(3)"
    assert faults_of({"attempts": 0}) == ["r.toml: attempts: 'fixed(0)': a budget must allow at least 1 attempt"]


@given(st.integers(1, 60), st.integers(0, 60))
def test_uniform_gives_every_number_the_same_share(low: int, more: int) -> None:
    budget = AttemptBudget.parse(f"uniform({low},{low + more})")
    assert len(budget.weights) == budget.max_attempts == low + more
    assert budget.weights[: low - 1] == (0.0,) * (low - 1)
    assert set(budget.weights[low - 1 :]) == {1 / (more + 1)}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9).filter(lambda w: sum(w) > 1e-3))
def test_weights_become_probabilities_in_their_proportions(weights: list[float]) -> None:
    budget = AttemptBudget.parse(f"weights({','.join(map(str, weights))})")
    assert sum(budget.weights) == pytest.approx(1)
    assert [w * sum(weights) for w in budget.weights] == pytest.approx(weights)
    assert AttemptBudget.parse(str(budget)) == budget


@given(st.one_of(st.text(max_size=20), st.from_regex(r"(uniform|fixed|weights)\([0-9a-z,.+-]{0,8}\)", fullmatch=True)))
def test_no_text_breaks_the_parser_otherwise_than_by_its_own_fault(text: str) -> None:
    try:
        budget = AttemptBudget.parse(text)
    except ValueError as error:
        assert str(error).startswith("attempts: ")
    else:
        assert sum(budget.weights) == pytest.approx(1)
        assert 1 <= budget.max_attempts <= len(budget.weights)
        assert AttemptBudget.parse(budget.text) == budget


# ------------------------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"optimiser": {}}, "unknown key 'optimiser'; did you mean 'optimizer'?"),
        ({"optimizer": {"learning": 1}}, "unknown key 'optimizer.learning'; known keys: betas, decay, eps, final, grad_clip, lr, muon_lr"),
        ({"optimizer": {"grad_clp": 1}}, "unknown key 'optimizer.grad_clp'; did you mean 'grad_clip'?"),
        ({"warmup": {"optimizer": {"schedul": "linear"}}}, "unknown key 'warmup.optimizer.schedul'; did you mean 'schedule'?"),
        ({"model": {"path": "tiny:", "tiny": {"layer": 2}}}, "unknown key 'model.tiny.layer'; did you mean 'layers'?"),
        ({"advantage": {"name": "grop"}}, "advantage.name: 'grop' is not known; use 'gae', 'grpo', 'dr_grpo', 'rloo', 'pass@k', 'reinforce++' or 'attempt' (did you mean 'grpo'?)"),
        ({"optimizer": {"schedule": "step"}}, "optimizer.schedule: 'step' is not known; use 'constant', 'linear' or 'cosine'"),
        ({"model": {}}, "'model.path' is missing: set it in the recipe"),
        ({"optimizer": {"lr": 0}}, "optimizer.lr: Input should be greater than 0"),
        ({"sampling": {"temperature": 1e300}}, "sampling.temperature: Input should be less than or equal to 100"),
        ({"optimizer": {"betas": [1.5, 0.9]}}, "optimizer.betas.0: Input should be less than 1"),
        ({"model": {"path": "tiny:large"}}, "model.path: write 'tiny:' alone; its size is set in [model.tiny]"),
        ({"train": {"steps": "many"}}, "train.steps: Input should be a valid integer, unable to parse string as an integer"),
        ({"train": 3}, "train: 3 is no section: set its keys one by one, e.g. train.steps=..."),
        ({"model": "foo"}, "model: 'foo' is no section: set its keys one by one, e.g. model.path=..."),
        ({"problems": "foo.jsonl"}, "problems: 'foo.jsonl' is no section: set its keys one by one, e.g. problems.train=..."),
        ({"model": {"path": "tiny:", "tiny": 3}}, "model.tiny: 3 is no section: set its keys one by one, e.g. model.tiny.hidden_size=..."),
        ({"model": {"path": " "}}, "model.path: is empty; give a folder, a Hub id, a .gguf file or 'tiny:'"),
        ({"attempts": [1, 2]}, f"attempts: [1, 2] is not a budget; {FORMS}"),
        ({"attempts": 2.5}, f"attempts: 2.5 is not a budget; {FORMS}"),
        ({"attempts": True}, f"attempts: True is not a budget; {FORMS}"),
        ({"eval": {"temperatures": 1.0}}, "eval.temperatures: 1.0 is no list: write it in brackets, e.g. [1.0]"),
        ({"optimizer": {"betas": 0.9}}, "optimizer.betas: 0.9 is no list: write it in brackets, e.g. [0.9]"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas: [0.9] has too few values: write as many as the default has (mulligan settings optimizer.betas)"),
        ({"problems": {"train": "a.jsonl", "eval": 5}}, "problems.eval: 5 is no list: write it in brackets, e.g. [5]"),
    ],
)
def test_a_fault_names_the_key_and_what_to_write(table: dict[str, Any], fault: str) -> None:
    (found,) = faults_of(table)
    assert found.startswith(f"r.toml: {fault}")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize("key", ["reward.wrong", "reward.correct", "optimizer.lr", "warmup.optimizer.lr", "sampling.temperature", "loss.kl", "eval.temperature"])
def test_a_number_that_is_not_finite_is_a_fault(key: str, value: str, file: Path) -> None:
    (found,) = faults_in(file, f"{key}={value}")
    assert found.startswith(f"{file}: {key}: Input should be ")


def test_seeds_are_what_generators_take(file: Path) -> None:
    assert load_recipe(file, [f"seed={2**63 - 1}"]).seed == 2**63 - 1
    assert faults_in(file, f"seed={2**63}") == [f"{file}: seed: Input should be less than or equal to {2**63 - 1}"]


def test_a_whole_number_of_thousands_of_digits_is_a_fault(file: Path) -> None:
    assert faults_in(file, f"seed={'9' * 5000}")[0].startswith(f"{file}: seed: Unable to parse input string as an integer")
    file.write_text(f"seed = {'9' * 5000}\n{TEXT}")
    assert faults_in(file)[0].startswith(f"{file}: not valid TOML: Exceeds the limit")


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"protocol": {"max_attempt_tokens": 100, "max_dialogue_tokens": 100}}, "protocol.max_attempt_tokens must be below protocol.max_dialogue_tokens"),
        ({"advantage": {"name": "rloo"}, "train": {"group_size": 1}}, "advantage.name = 'rloo' compares the rollouts of a group: set train.group_size to 2"),
        ({"train": {"problems_per_step": 1, "group_size": 2, "minibatches": 3}}, "train.minibatches = 3 is more than the 2 dialogues of a step"),
        ({"sampling": {"temperature": 0}}, "sampling.temperature = 0 cannot explore: training needs 0.01 or more"),
        ({"sampling": {"temperature": 1e-40}}, "sampling.temperature = 1e-40 cannot explore: training needs 0.01 or more"),
        ({"train": {"micro_batch_tokens": 100}}, "train.micro_batch_tokens is below protocol.max_dialogue_tokens"),
        ({"loss": {"kl_in_reward": True}}, "loss.kl_in_reward without loss.kl"),
        ({"loss": {"kl_in_reward": True, "kl": 0.1}, "advantage": {"name": "pass@k"}}, "loss.kl_in_reward has no effect on advantage.name = 'pass@k'"),
        ({"loss": {"kl": 0.1, "kl_estimator": "k1"}}, "loss.kl_estimator = 'k1' has no pull as a loss, only noise: set it to 'k2' or 'k3', or set loss.kl_in_reward"),
    ],
)
def test_settings_that_contradict_each_other(table: dict[str, Any], fault: str) -> None:
    (found,) = faults_of(table)
    assert found.startswith(f"r.toml: {fault}")


def test_a_group_is_needed_only_where_it_is_compared() -> None:
    for name in ("gae", "reinforce++", "attempt"):
        assert parse_recipe({**SMALLEST, "advantage": {"name": name}, "train": {"group_size": 1}}).train.group_size == 1


def test_all_faults_come_at_once(file: Path) -> None:
    file.write_text('attempts = "fixed(0)"\nspeed = 1\n[model]\npath = "tiny:"\n[optimizer]\nlr = -1\n')
    found = faults_in(file, "loss", "train.step=3")
    assert len(found) == 6
    for part in ("override 'loss'", "'problems' is missing", "at least 1 attempt", "unknown key 'speed'", "optimizer.lr: Input", "unknown key 'train.step'; did you mean 'steps'?"):
        assert sum(part in fault for fault in found) == 1, part


def test_contradictions_come_at_once_too() -> None:
    assert len(faults_of({"sampling": {"temperature": 0}, "loss": {"kl_in_reward": True}})) == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert faults_in(tmp_path / "none.toml") == [f"{tmp_path}/none.toml: no such recipe"]
    assert faults_in(tmp_path) == [f"{tmp_path} is a folder: name a recipe, a .toml file"]
    broken = tmp_path / "b.toml"
    broken.write_text("a = \n")
    assert faults_in(broken)[0].startswith(f"{broken}: not valid TOML: ")
    broken.write_bytes(b"\xff\xfe")
    assert faults_in(broken)[0].startswith(f"{broken}: cannot be read")


def test_a_recipe_cannot_be_changed_after_it_was_read() -> None:
    recipe = parse_recipe(SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


# --------------------------------------------------------------------------------------------------------------- overrides


def test_overrides_keep_the_type_that_they_are_written_with(file: Path) -> None:
    recipe = load_recipe(
        file,
        [
            "attempts=uniform(1,3)",
            "optimizer.lr=1e-5",
            "train.steps = 7",
            "protocol.state_budget=false",
            "optimizer.betas=[0.8, 0.9]",
            "problems.eval=['builtin:guess?split=test']",
            "protocol.feedback=none",
            "name=my run",
            "warmup.optimizer.lr=0.5",
        ],
    )
    assert (str(recipe.attempts), recipe.optimizer.lr, recipe.train.steps, recipe.protocol.state_budget) == ("uniform(1,3)", 1e-5, 7, False)
    assert recipe.optimizer.betas == (0.8, 0.9)
    assert recipe.problems.eval == ("builtin:guess?split=test",)
    assert (recipe.protocol.feedback, recipe.name, recipe.warmup.optimizer.lr) == ("none", "my run", 0.5)


def test_one_problem_set_and_one_number_of_attempts_need_no_brackets_and_no_quotes(file: Path) -> None:
    recipe = load_recipe(file, ["problems.eval=held_out.jsonl?answer=gold", "eval.attempts=3"])
    assert recipe.problems.eval == ("held_out.jsonl?answer=gold",)
    assert parse_attempts(recipe.eval_attempts) == (3,)
    with pytest.raises(ConfigError, match=r"eval\.attempts"):
        load_recipe(file, ["eval.attempts=true"])


def test_null_gives_a_default_back(file: Path) -> None:
    file.write_text(TEXT + "limit = 5\n")
    assert load_recipe(file).problems.limit == 5
    assert load_recipe(file, ["problems.limit=null"]).problems.limit is None


def test_the_last_override_holds(file: Path) -> None:
    assert load_recipe(file, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("steps", "override 'steps': write key=value, e.g. optimizer.lr=1e-5"),
        ("=3", "override '=3': write key=value, e.g. optimizer.lr=1e-5"),
        ("model.path.x=3", "override 'model.path.x=3': 'path' is a value, not a section"),
    ],
)
def test_override_faults(override: str, fault: str, file: Path) -> None:
    assert faults_in(file, override) == [fault]


def test_overrides_change_a_table_in_place() -> None:
    table: dict[str, Any] = {"train": {"steps": 1}}
    assert apply_overrides(table, ["train.steps=2", "loss.kl=0.1", "broken"]) == ["override 'broken': write key=value, e.g. optimizer.lr=1e-5"]
    assert table == {"train": {"steps": 2}, "loss": {"kl": 0.1}}


# -------------------------------------------------------------------------------------------------------------- round trip

recipes = st.fixed_dictionaries(
    {
        "name": st.text(st.characters(codec="utf-8"), max_size=12),
        "seed": st.integers(0, 2**31),
        "attempts": st.sampled_from(["uniform(1,5)", "fixed(2)", "weights(1,0,2.5)", "weights(1e-3,7)"]),
        "model": st.fixed_dictionaries({"path": st.just("tiny:")}, optional={"tokenizer": st.text(st.characters(codec="utf-8"), max_size=5)}),
        "problems": st.fixed_dictionaries({"train": st.just("builtin:guess"), "eval": st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=2)}),
        "optimizer": st.fixed_dictionaries({"lr": st.floats(1e-12, 1.0), "betas": st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))}),
        "train": st.fixed_dictionaries({}, optional={"max_tokens": st.integers(1, 10**12), "threads": st.integers(1, 64)}),
    }
)


@given(recipes)
def test_a_resolved_recipe_reads_back_equal_from_json_and_from_toml(table: dict[str, Any]) -> None:
    recipe = parse_recipe(table)
    assert parse_recipe(json.loads(json.dumps(dump_recipe(recipe)))) == recipe
    assert parse_recipe(tomllib.loads(to_toml(dump_recipe(recipe)))) == recipe


def test_every_key_is_in_the_resolved_recipe() -> None:
    dumped = dump_recipe(parse_recipe(SMALLEST))
    assert set(dumped) == set(Recipe.model_fields)
    assert dumped["attempts"] == "uniform(1,5)"
    assert dumped["model"]["tiny"]["hidden_size"] == 128


def test_8_bit_rollouts_come_with_importance_weights() -> None:
    base = {"model": {"path": "tiny:"}, "problems": {"train": "builtin:guess"}}
    assert parse_recipe(base).importance_cap == 0
    assert parse_recipe(base | {"sampling": {"rollout_precision": "int8"}}).importance_cap == 2
    assert parse_recipe(base | {"sampling": {"rollout_precision": "int8"}, "loss": {"importance_cap": 1.5}}).importance_cap == 1.5
    with pytest.raises(ConfigError, match=r"set loss\.importance_cap above 0"):
        parse_recipe(base | {"sampling": {"rollout_precision": "int8"}, "loss": {"importance_cap": 0}})


# -------------------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize(("trained", "text"), [(1, "1,3"), (2, "1-2,4"), (5, "1-5,7"), (999, "1-999,1000"), (1000, "1-1000")])
def test_evaluation_goes_two_attempts_beyond_training(trained: int, text: str) -> None:
    assert default_attempts(trained) == text
    assert max(parse_attempts(text)) == min(trained + 2, 1000)
    assert parse_recipe(SMALLEST | {"attempts": f"fixed({trained})"}).eval_attempts == text


def test_evaluation_as_it_is_asked_for() -> None:
    assert parse_recipe(SMALLEST | {"eval": {"attempts": "1,2"}}).eval_attempts == "1,2"
    plain = parse_recipe(SMALLEST).eval
    assert (plain.samples, plain.temperatures, plain.controls) == (0, (1.0,), ()), "a run's evaluation is as cheap as can be unless more is asked for"
    every = parse_recipe(SMALLEST | {"eval": {"controls": "all", "temperatures": [0.6, 1.2]}}).eval
    assert every.controls == ("history_blind", "verdict_hidden", "random_verdict", "other_history", "false_wrong")
    assert every.temperatures == (0.6, 1.2)
    assert parse_recipe(SMALLEST | {"eval": {"controls": "false_wrong, history_blind,false_wrong"}}).eval.controls == ("history_blind", "false_wrong")
    assert parse_recipe(SMALLEST | {"eval": {"controls": ["verdict_hidden"]}}).eval.controls == ("verdict_hidden",)
    assert parse_recipe(SMALLEST | {"eval": {"controls": "none"}}).eval.controls == ()


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"controls": "history_blnd"}, "eval.controls: 'history_blnd' is not known; did you mean 'history_blind'?"),
        ({"controls": "x"}, "eval.controls: 'x' is not known; use all, or some of history_blind, verdict_hidden"),
        ({"controls": ["false_wrnog"]}, "eval.controls.0: 'false_wrnog' is not known; use 'history_blind'"),
        ({"temperatures": [0.0]}, "eval.temperatures.0: Input should be greater than or equal to 0.01"),
        ({"temperature": 1e-40}, "eval.temperature: 1e-40 is as good as greedy: write 0, or 0.01 or more"),
        ({"temperature": 1e300}, "eval.temperature: Input should be less than or equal to 100"),
        ({"temperatures": [1e300]}, "eval.temperatures.0: Input should be less than or equal to 100"),
        ({"temperatures": []}, "eval.temperatures: give at least one, e.g. [1.0]"),
    ],
)
def test_faults_of_the_evaluation(table: dict[str, Any], fault: str) -> None:
    (found,) = faults_of({"eval": table})
    assert found.startswith(f"r.toml: {fault}")


def test_runs_of_before_there_were_several_temperatures_can_be_read() -> None:
    assert parse_recipe(SMALLEST | {"eval": {"sample_temperature": 0.7}}).eval.temperatures == (0.7,)
    assert any("unknown key 'eval.sample_temperature'" in fault for fault in faults_of({"eval": {"sample_temperature": 0.7, "temperatures": [1.0]}}))
