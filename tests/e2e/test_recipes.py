"""Every file of recipes/ loads and can be planned; those whose model or data are not at hand, with small stand-ins for them."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

import pytest
import torch
from tiny_runs import metrics_of, rollouts_of
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, Qwen2Config

from mulligan.cli import main
from mulligan.config import AttemptBudget, Recipe, load_recipe, parse_recipe
from mulligan.display import Display
from mulligan.plan import Plan, make_plan
from mulligan.runlog import recipe_differences
from mulligan.train import train

RECIPES = {path.stem: path for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))}
OWN = {path.stem: path for path in RECIPES.values() if tomllib.loads(path.read_text())["model"]["path"] == "tiny:"}
"""Recipes that bring all they need."""
PAPER = {name: path for name, path in RECIPES.items() if name.startswith("paper-")}
every_recipe = pytest.mark.parametrize("name", RECIPES)


@pytest.fixture(scope="module")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory, tokenizers: dict[str, PreTrainedTokenizerBase]) -> Path:
    """A folder like that of Qwen2.5: two layers of width 32 with random weights, and a byte-level tokenizer with its kind of template."""
    folder = tmp_path_factory.mktemp("qwen2")
    tokenizer = tokenizers["chatml_base"]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen2Config(**sizes, vocab_size=len(tokenizer), max_position_embeddings=4096, tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def stand_ins(name: str, model: Path, data: Path) -> list[str]:
    overrides = [f"model.path={model}"] if name not in OWN else []
    if name == "own":  # one source without brackets, as the README has it
        overrides.append(f"problems.eval={data / 'gsm8k.jsonl'}?limit=20")
    return [*overrides, f"problems.train={data / 'math500.jsonl'}?limit=40"] if name in {*PAPER, "own"} else overrides


# --------------------------------------------------------------------------------------------------------------------- load


def test_the_recipes_are_found():
    assert {"quickstart", "quickstart-guess", "smollm2-arithmetic", "paper-multi-attempt", "paper-single-turn"} <= RECIPES.keys()
    assert {"quickstart", "quickstart-guess"} <= OWN.keys()


@every_recipe
def test_it_loads(name: str):
    recipe = load_recipe(RECIPES[name])
    assert recipe.name == name
    assert recipe.train.steps > 0
    comment = RECIPES[name].read_text().splitlines()[0]
    assert comment.startswith("# "), "a recipe begins with what it is for"


@every_recipe
def test_check_prints_it_as_toml(name: str, capsys: pytest.CaptureFixture[str]):
    assert main(["check", str(RECIPES[name]), "--dry-run"]) == 0
    assert parse_recipe(tomllib.loads(capsys.readouterr().out)) == load_recipe(RECIPES[name])


@every_recipe
def test_its_baseline_is_a_recipe(name: str):
    recipe = load_recipe(RECIPES[name], ["attempts=fixed(1)"])
    assert recipe.attempts == AttemptBudget.parse("fixed(1)")


# --------------------------------------------------------------------------------------------------------------------- plan


@every_recipe
def test_it_can_be_planned(name: str, tiny_qwen2: Path, data_dir: Path):
    recipe = load_recipe(RECIPES[name], stand_ins(name, tiny_qwen2, data_dir))
    plan = make_plan(recipe)
    check_plan(plan, recipe)
    assert len(plan.problems) >= 35


def check_plan(plan: Plan, recipe: Recipe) -> None:
    assert not any(plan.set_aside.values()) or recipe.name in {*PAPER, "own"}
    assert 0 < plan.longest_prompt < recipe.protocol.max_dialogue_tokens
    assert plan.parameters > 1000
    assert plan.memory_bytes > 16 * plan.parameters
    assert plan.tokens_per_step == recipe.train.problems_per_step * recipe.train.group_size * recipe.protocol.max_dialogue_tokens


def test_the_real_model_of_the_arithmetic_recipe():
    recipe = load_recipe(RECIPES["smollm2-arithmetic"])
    package = recipe.model.path.removeprefix("package:").partition("/")[0]
    if recipe.model.path.startswith("package:") and importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package}, which holds the model file, is not installed")
    plan = make_plan(recipe)
    check_plan(plan, recipe)
    assert plan.parameters == 134_515_008
    assert len(plan.problems) == 5000


def test_the_recipe_for_ones_own_says_which_files_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_qwen2: Path):
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(RECIPES["own"]), f"model.path={tiny_qwen2}"]) != 0
    told = capsys.readouterr().err
    assert "questions.jsonl: no such file" in told
    assert "held_out.jsonl: no such file" in told


# ------------------------------------------------------------------------------------------------------------- the paper's arms


def test_the_papers_arms_differ_in_the_attempts_alone():
    multi, single = (load_recipe(PAPER[f"paper-{arm}"]) for arm in ("multi-attempt", "single-turn"))
    assert {key for key, _, _ in recipe_differences(multi, single)} == {"name", "attempts"}
    assert str(single.attempts) == "fixed(1)"
    assert str(multi.attempts) == "uniform(1,5)"


@pytest.mark.parametrize("name", PAPER)
def test_a_step_of_the_papers_recipe(name: str, tiny_qwen2: Path, data_dir: Path, tmp_path: Path):
    """The recipe as it stands, on real questions, with a tiny model of the same kind, fewer dialogues and shorter ones."""
    smaller = ["train.steps=1", "train.problems_per_step=8", "train.minibatches=2", "train.threads=1", "protocol.max_attempt_tokens=12"]
    recipe = load_recipe(PAPER[name], [*stand_ins(name, tiny_qwen2, data_dir), *smaller])
    run = train(recipe, tmp_path / "r", display=Display(quiet=True))
    (line,) = metrics_of(run)
    assert line["optimizer_steps"] == 2
    assert line["grad_norm"] > 0
    assert line["critic_grad_norm"] > 0
    assert "kl" in line
    assert line["share_truncated"] > 0.9, "a model of random weights never answers"
    (rows,) = rollouts_of(run).values()
    assert len(rows) == 8
    budgets = {row["k"] for row in rows}
    assert budgets == {1} if name == "paper-single-turn" else budgets <= {1, 2, 3, 4, 5} and len(budgets) > 1
    for row in rows:
        assert len(row["attempts"]) == row["k"]
        assert [a["feedback"] for a in row["attempts"][:-1]] == [
            f"Your answer is incorrect. You have {left} attempts left. Try an alternative." for left in range(row["k"] - 1, 0, -1)
        ]
    loaded = AutoModelForCausalLM.from_pretrained(run / "model")
    assert loaded.config.model_type == "qwen2"
