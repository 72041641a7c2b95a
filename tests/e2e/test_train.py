"""Whole training runs of tiny models: what a run leaves behind, and that every option of a recipe runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import CountingDisplay, Killed, KillingDisplay, metrics_of, rollouts_of, tiny, weights_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from mulligan.checkpoint import load
from mulligan.config import ModelConfig, dump_recipe, parse_recipe
from mulligan.display import Display
from mulligan.errors import ConfigError, GraderError, RunError
from mulligan.model import load_policy
from mulligan.model.packed import _int8_is_exact
from mulligan.runtime.local import make_player
from mulligan.train import train
from mulligan.types import Problem, Verdict, VerdictKind

QUIET = Display(quiet=True)


@pytest.fixture(scope="module")
def counted() -> CountingDisplay:
    return CountingDisplay()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, counted: CountingDisplay) -> Path:
    """A run from scratch: 4 steps of warm-up, 4 of reinforcement learning with 8 x 2 dialogues, evaluation."""
    return train(tiny(), tmp_path_factory.mktemp("runs") / "tiny", display=counted)


# ------------------------------------------------------------------------------------------------------------ the run folder


def test_every_part_is_there(finished: Path):
    names = {path.name for path in finished.iterdir()}
    assert names == {".lock", "recipe.json", "manifest.json", "metrics.jsonl", "rollouts", "checkpoints", "initial_model", "model", "eval.json", "values.parquet", "dialogues.parquet"}
    assert sorted(p.name for p in (finished / "rollouts").iterdir()) == [f"step_{i:06d}.parquet" for i in range(4)]
    assert sorted(p.name for p in (finished / "checkpoints").iterdir()) == ["step_000006", "step_000008"], "the two newest of 3, 6 and 8"


def test_what_the_display_is_told(finished: Path, counted: CountingDisplay):
    assert counted.steps == [1, 2, 3, 4, 5, 6, 7, 8]
    assert counted.dialogues == 4 * 8 * 2 + 4 * (3 + 2), "training, then the evaluation's three budgets and two samples"


def test_recipe_and_manifest(finished: Path):
    assert parse_recipe(json.loads((finished / "recipe.json").read_text())) == tiny()
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["seed"] == 0
    assert manifest["data"].keys() == {"builtin:guess?low=1&high=4&n=50", "builtin:guess?low=1&high=4&split=test"}
    assert {"torch", "transformers"} <= manifest["packages"].keys()
    assert "resumed" not in manifest


def test_metrics(finished: Path):
    lines = metrics_of(finished, times=True)
    assert [(line["step"], line["stage"], line["train_step"]) for line in lines] == [
        *((i, "warmup", i - 4) for i in range(4)),
        *((4 + i, "train", i) for i in range(4)),
    ]
    assert lines[3]["loss"] < lines[0]["loss"]
    total = 0
    for line in lines[4:]:
        total += line["tokens_sampled"]
        assert line["tokens_total"] == total
        assert -1 <= line["reward"] <= 1
        assert line["drift_max"] < 1e-4, "the sampler's log-probs are the learner's"
        assert line["optimizer_steps"] == 1
        assert line["skipped_updates"] == 0
        assert 0 < line["entropy"] < 4
        assert line["seconds"] > line["seconds_sampling"] > 0
        assert sum(line[f"share_{o}"] for o in ("correct", "wrong", "no_answer", "truncated", "ungradable")) == pytest.approx(1)
        assert "nonfinite" not in line
    assert [line["lr"] for line in lines[4:]] == [1.5e-3, 3e-3, 3e-3, 3e-3]


def test_rollouts(finished: Path):
    metrics = metrics_of(finished)[4:]
    for step, rows in enumerate(rollouts_of(finished).values()):
        assert len(rows) == 16
        assert [row["rollout"] for row in rows] == [0, 1] * 8
        assert {row["policy_version"] for row in rows} == {4 + step}
        assert np.mean([row["reward"] for row in rows]) == pytest.approx(metrics[step]["reward"])
        assert sum(sum(row["sampled"]) for row in rows) == metrics[step]["tokens_sampled"]
        for row in rows:
            sampled = np.array(row["sampled"])
            assert len(row["token_ids"]) == len(sampled) == len(row["logprobs"]) == len(row["advantages"])
            assert np.flatnonzero(sampled).tolist() == [i for a in row["attempts"] for i in range(a["start"], a["end"])]
            logprobs, advantages = np.array(row["logprobs"]), np.array(row["advantages"])
            assert (logprobs[sampled] < 0).all()
            assert not logprobs[~sampled].any()
            assert not advantages[~sampled].any()
            assert row["logprobs"] == row["full_logprobs"], "nothing reshaped the distribution"
            assert sum(row["rewards"]) == row["reward"]
            assert row["stage"] == "train"
            assert row["step"] == step
            for attempt in row["attempts"]:
                assert len(set(advantages[attempt["start"] : attempt["end"]])) == 1, "credit per attempt"


def test_recorded_logprobs_are_the_initial_models(finished: Path):
    """Replay the first rollouts on the weights of their time: what was written is what the model says."""
    state = load(finished / "checkpoints" / "step_000006")["workers"]["learner"]
    assert state["version"] == 6
    model = AutoModelForCausalLM.from_pretrained(finished / "model")
    model.load_state_dict(state["model"])
    for row in rollouts_of(finished)["step_000002.parquet"]:  # played after 4 + 2 updates
        ids = torch.tensor([row["token_ids"]])
        with torch.no_grad():
            logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None]).squeeze(-1).numpy()
        sampled = np.array(row["sampled"])[1:]
        np.testing.assert_allclose(logprobs[sampled], np.array(row["logprobs"])[1:][sampled], atol=1e-4)


def test_the_model_loads_as_any_other(finished: Path):
    model = AutoModelForCausalLM.from_pretrained(finished / "model")
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "3 guess 1 4"}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**ids, max_new_tokens=4, do_sample=False)
    assert out.shape[1] > ids["input_ids"].shape[1]
    trained = load(finished / "checkpoints" / "step_000008")["workers"]["learner"]["model"]
    assert all(torch.equal(trained[name], value) for name, value in model.state_dict().items())
    started = AutoModelForCausalLM.from_pretrained(finished / "initial_model").state_dict()
    assert not any(torch.equal(trained[name], started[name]) for name in trained if name.endswith("proj.weight"))


def test_the_model_card(finished: Path):
    text = (finished / "model" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert "50 problems from `builtin:guess?low=1&high=4&n=50`" in text
    assert "uniform(1,3)" in text


def test_the_evaluation(finished: Path):
    evaluation = json.loads((finished / "eval.json").read_text())
    assert evaluation["model"] == str(finished / "model")
    (figures,) = evaluation["problem_sets"].values()
    assert figures["accuracy"].keys() == {"1", "2", "3"}
    assert figures["pass_at_k"].keys() == {"1", "2"}
    assert all(entry.keys() == {"mean", "low", "high", "n"} and entry["n"] == 4 for entry in figures["accuracy"].values())


def test_a_run_is_not_overwritten(finished: Path):
    before = weights_of(finished)
    with pytest.raises(RunError, match="already holds a run: go on with it by --resume"):
        train(tiny(), finished, display=QUIET)
    assert weights_of(finished) == before


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path):
    run = train(tiny(train__steps=1), tmp_path / "r", display=QUIET)
    before = metrics_of(run, times=True), rollouts_of(run), weights_of(run)
    assert train(tiny(train__steps=1), run, resume=True, display=QUIET) == run
    assert (metrics_of(run, times=True), rollouts_of(run), weights_of(run)) == before


def test_the_same_recipe_gives_the_same_run(finished: Path, tmp_path: Path):
    again = train(tiny(), tmp_path / "again", display=QUIET)
    assert metrics_of(again) == metrics_of(finished)
    assert weights_of(again) == weights_of(finished)
    other = train(tiny(seed=1), tmp_path / "other", display=QUIET)
    assert weights_of(other) != weights_of(finished)


# ------------------------------------------------------------------------------------------------------------ the reward rises


def test_the_reward_rises(tmp_path: Path):
    """Guess one of four numbers with three attempts. The warm-up teaches the format under random guesses (reward 0.37 on average);
    bisection solves 1, 3 and 4 of 4 within 1, 2 and 3 attempts (reward 1), and only reinforcement learning can find it."""
    recipe = tiny(
        attempts="fixed(3)",
        problems={"train": "builtin:guess?low=1&high=4&n=4000", "eval": ["builtin:guess?low=1&high=4&split=test"]},
        optimizer={"name": "muon", "lr": 3e-3, "warmup": 2},
        loss={"entropy": 0.01},
        warmup={"steps": 20, "batch_size": 64, "optimizer": {"lr": 1e-2}},
        train={"steps": 30, "problems_per_step": 128, "group_size": 1, "minibatches": 2, "micro_batch_tokens": 4096, "threads": 1},
        sampling={"max_rows": 128},
        log={"rollouts": False, "checkpoint_every": 1000},
        eval={"attempts": "1-3"},
    )
    run = train(recipe, tmp_path / "r", display=QUIET)
    rewards = [line["reward"] for line in metrics_of(run) if line["stage"] == "train"]
    start, end = np.mean(rewards[:5]), np.mean(rewards[-5:])
    assert end > start + 0.2
    assert end > 0.6
    (figures,) = json.loads((run / "eval.json").read_text())["problem_sets"].values()
    assert figures["accuracy"]["3"]["mean"] >= 0.75, "greedy, it solves what random guesses solve in 58 %"
    assert not list((run / "rollouts").iterdir()), "log.rollouts = false"


# ------------------------------------------------------------------------------------------------------------ every option runs

BASE = {"train__steps": 2, "warmup__steps": 5, "problems__eval": []}
OPTIONS: dict[str, dict[str, Any]] = {
    "gae, separate critic": {"advantage__name": "gae", "critic__kind": "separate"},
    "gae, head": {"advantage__name": "gae", "critic__kind": "head"},
    "gae, own rate, value clip off, discount": {"advantage": {"name": "gae", "gamma": 0.99, "lam": 0.9}, "critic__lr": 1e-2, "loss__value_clip": 0},
    "grpo": {"advantage__name": "grpo"},
    "dr_grpo, constant mean": {"advantage__name": "dr_grpo", "loss__mean": "constant"},
    "rloo": {"advantage__name": "rloo"},
    "reinforce++": {"advantage__name": "reinforce++", "train__group_size": 1},
    "reinforce++, plain": {"advantage": {"name": "reinforce++", "normalize": "none"}},
    "attempt, one step": {"advantage": {"name": "attempt", "one_step": True, "min_count": 2}},
    "attempt, not normalised": {"advantage": {"name": "attempt", "normalize": "none"}},
    "sequence mean": {"loss__mean": "sequence"},
    "kl k1 in the reward": {"loss": {"kl": 0.1, "kl_estimator": "k1", "kl_in_reward": True}},
    "kl k2 as loss": {"loss": {"kl": 0.1, "kl_estimator": "k2"}},
    "kl k3 as loss, gae": {"loss": {"kl": 0.1, "kl_estimator": "k3"}, "advantage__name": "gae"},
    "kl in the reward, gae": {"loss": {"kl": 0.1, "kl_in_reward": True}, "advantage__name": "gae"},
    "entropy": {"loss__entropy": 0.05},
    "importance cap": {"loss__importance_cap": 2.0},
    "top-p": {"sampling__top_p": 0.8},
    "temperature": {"sampling__temperature": 0.7},
    "top-p, temperature, importance cap": {"sampling": {"temperature": 1.3, "top_p": 0.9}, "loss__importance_cap": 1.5},
    "mini-batches and epochs": {"train__minibatches": 3, "train__epochs": 2},
    "micro-batches": {"train__micro_batch_tokens": 40},
    "few rows, short prefill": {"sampling": {"max_rows": 3, "prefill_tokens": 16}},
    "muon, cosine, decay, no clipping": {"optimizer": {"name": "muon", "lr": 3e-3, "schedule": "cosine", "weight_decay": 0.1, "grad_clip": 0}},
    "gradient checkpointing": {"model__gradient_checkpointing": True},
    "bfloat16": {"model__dtype": "bfloat16"},
    "tied embeddings, grouped heads": {"model__tiny": {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate_size": 64, "tie_word_embeddings": True}},
    "budget per rollout": {"protocol__budget_per": "rollout", "attempts": "weights(1,0,2)"},
    "end of turn, verdict": {"protocol__stop": "end_of_turn", "protocol__feedback": "wrong {n}"},
    "reward options": {"reward": {"discount": 0.9, "no_answer_cost": 0.1}},
    "blind attempts": {"protocol__history": "none"},
    "blind attempts, gae, importance cap, kl": {"protocol__history": "none", "advantage__name": "gae", "loss": {"importance_cap": 2.0, "kl": 0.1}},
    "pass@k": {"advantage": {"name": "pass@k", "k": 2}, "train__group_size": 8},
    "8-bit rollouts": {"sampling__rollout_precision": "int8"},
    "evaluation on the way": {"train__eval_every": 1, "problems__eval": ["builtin:guess?low=1&high=4&split=test"]},
}


@pytest.fixture(scope="module")
def plain_weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return weights_of(train(tiny(**BASE), tmp_path_factory.mktemp("plain") / "r", display=QUIET))


NEEDS_INT8 = pytest.mark.skipif(not _int8_is_exact(), reason="no exact 8-bit products on this processor")


@pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS_INT8) if name == "8-bit rollouts" else name for name in OPTIONS])
def test_every_option_runs_and_changes_something(name: str, tmp_path: Path, plain_weights: bytes):
    recipe = tiny(**BASE | OPTIONS[name])
    run = train(recipe, tmp_path / "r", display=QUIET)
    lines = [line for line in metrics_of(run) if line["stage"] == "train"]
    assert len(lines) == 2
    assert all(np.isfinite(line["loss"]) and line["skipped_updates"] == 0 and "nonfinite" not in line for line in lines)
    assert all(line["grad_norm"] > 0 for line in lines)
    assert lines[0]["optimizer_steps"] == recipe.train.minibatches * recipe.train.epochs
    rounded = recipe.sampling.rollout_precision == "int8"
    drift = 0.02 if recipe.model.dtype == "bfloat16" else 0.2 if rounded else 1e-4
    if rounded:
        assert all(line["drift_max"] > 1e-4 and line["importance/kl"] < 1e-2 and 0.99 < line["importance/mean"] < 1.01 for line in lines)
    assert all(line["drift_max"] < drift for line in lines) or recipe.sampling.top_p < 1, [line["drift_max"] for line in lines]
    assert ("value_loss" in lines[0]) == (recipe.advantage.name == "gae")
    assert ("kl_to_reference" in lines[0]) == (recipe.loss.kl > 0)
    if recipe.loss.kl:
        assert lines[0]["kl_to_reference"] == pytest.approx(0, abs=1e-5), "the reference is the model as the warm-up left it"
        assert abs(lines[1]["kl_to_reference"]) > 1e-5
    assert (weights_of(run) == plain_weights) == (name in UNCHANGED)


UNCHANGED = ("gradient checkpointing", "evaluation on the way")
"""Options that must leave the weights alone."""


def test_clipping(tmp_path: Path):
    """With several optimizer steps per batch the policy moves away from the sampler's, and is held back."""
    wide, narrow, higher = (
        train(tiny(**BASE, train__minibatches=4, train__epochs=3, loss={"clip_low": low, "clip_high": high}), tmp_path / f"{low}-{high}", display=QUIET)
        for low, high in ((50.0, 50.0), (0.02, 0.02), (0.02, 0.5))
    )
    fractions = [metrics_of(run)[-1]["clip_fraction"] for run in (wide, narrow, higher)]
    assert fractions[0] == 0 < fractions[2] < fractions[1]
    assert len({weights_of(run) for run in (wide, narrow, higher)}) == 3


def test_evaluation_on_the_way_leaves_the_run_alone(tmp_path: Path, plain_weights: bytes):
    run = train(tiny(**BASE | OPTIONS["evaluation on the way"]), tmp_path / "r", display=QUIET)
    assert weights_of(run) == plain_weights
    for step in (1, 2):
        evaluation = json.loads((run / f"eval_{step:06d}" / "eval.json").read_text())
        assert evaluation["model"] == f"{run} after {step} steps"
    line = metrics_of(run)[-1]
    assert line["builtin:guess?low=1&high=4&split=test/accuracy@3"] == evaluation["problem_sets"]["builtin:guess?low=1&high=4&split=test"]["accuracy"]["3"]["mean"]


@pytest.mark.parametrize("name", ["micro-batches", "few rows, short prefill", "gradient checkpointing"])
def test_how_the_work_is_cut_changes_next_to_nothing(name: str, tmp_path: Path):
    """Not to the bit, since sums are taken in another order; with the same rollouts, the losses agree."""
    plain = metrics_of(train(tiny(**BASE), tmp_path / "plain", display=QUIET))
    other = metrics_of(train(tiny(**BASE | OPTIONS[name]), tmp_path / "other", display=QUIET))
    for one, two in zip(plain, other, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3, abs=1e-5)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-3)
        assert one.get("reward") == two.get("reward")


def test_attempts_that_are_blind_to_their_history(tmp_path: Path):
    """Every attempt is read by itself; what was drawn in it is what the model says of the question and the attempts left alone."""
    run = train(tiny(**BASE | {"protocol__history": "none"}), tmp_path / "r", display=QUIET)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(run / "model"), AutoTokenizer.from_pretrained(run / "model")
    model.load_state_dict(load(run / "checkpoints" / "step_000006")["workers"]["learner"]["model"])  # 5 + 1 updates: plays step 1
    several = 0
    for row in rollouts_of(run)["step_000001.parquet"]:
        starts = row["context_starts"]
        assert len(starts) == len(row["attempts"])
        several += len(starts) > 1
        for t, (start, attempt) in enumerate(zip(starts, row["attempts"], strict=True)):
            ids = row["token_ids"][start : attempt["end"]]
            assert tokenizer.decode(ids[: attempt["start"] - start]).split()[1] == str(row["k"] - t)
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1).gather(-1, torch.tensor(ids)[1:, None]).squeeze(-1).numpy()
            count = attempt["end"] - attempt["start"]
            np.testing.assert_allclose(logprobs[-count:], row["logprobs"][attempt["start"] : attempt["end"]], atol=1e-4)
    assert several >= 3


def test_a_critic_that_learns_first(tmp_path: Path):
    """In the critic's own warm-up the policy stays as it is."""
    run = train(tiny(**BASE, warmup={"steps": 0}, advantage__name="gae", critic__warmup_steps=1, log__checkpoint_every=1), tmp_path / "r", display=QUIET)  # type: ignore[arg-type]
    started = AutoModelForCausalLM.from_pretrained(run / "initial_model").state_dict()
    first, second = (load(run / "checkpoints" / f"step_00000{i}")["workers"]["learner"] for i in (1, 2))
    assert all(torch.equal(first["model"][name], value) for name, value in started.items())
    assert any(value.any() for name, value in first["critic"].items() if name.startswith("head"))
    assert not all(torch.equal(second["model"][name], value) for name, value in started.items())


def test_max_tokens_ends_the_run(tmp_path: Path):
    run = train(tiny(train__max_tokens=300, train__steps=4, optimizer={"lr": 3e-3, "schedule": "linear", "warmup": 0}), tmp_path / "r", display=QUIET)
    lines = [line for line in metrics_of(run) if line["stage"] == "train"]
    totals = [line["tokens_total"] for line in lines]
    assert totals[-1] >= 300 > totals[-2]
    expected = [3e-3 * (1 - before / 300) for before in [0, *totals[:-1]]]
    assert [line["lr"] for line in lines] == pytest.approx(expected), "the schedule goes by tokens too"


def test_the_single_turn_arm(tmp_path: Path):
    run = train(tiny(attempts="fixed(1)"), tmp_path / "r", display=QUIET)
    rows = [row for part in rollouts_of(run).values() for row in part]
    assert {row["k"] for row in rows} == {len(row["attempts"]) for row in rows} == {1}
    assert {row["attempts"][0]["feedback"] for row in rows} == {None}
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert {tokenizer.decode(row["token_ids"][:6]) for row in rows} == {"<user> 1 guess 1 4 <answer>"}
    (figures,) = json.loads((run / "eval.json").read_text())["problem_sets"].values()
    assert figures["accuracy"].keys() == {"1", "2", "3"}, "evaluated with more attempts than it was trained with"


def test_the_warm_up_alone(tmp_path: Path):
    run = train(tiny(train__steps=0), tmp_path / "r", display=QUIET)
    assert [line["stage"] for line in metrics_of(run)] == ["warmup"] * 4
    assert (run / "model" / "model.safetensors").exists()
    assert (run / "eval.json").exists()


def test_a_warm_up_on_dialogues_of_ones_own(tmp_path: Path):
    """The model learns to say what the dialogues say: 2 first, and 3 after `higher`."""
    turns = [("user", "3 guess 1 4"), ("assistant", "\\boxed{2}"), ("user", "higher 2"), ("assistant", "\\boxed{3}")]
    line = json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]})
    (tmp_path / "d.jsonl").write_text(f"{line}\n{line}\n")
    recipe = tiny(warmup={"steps": 12, "data": str(tmp_path / "d.jsonl"), "optimizer": {"lr": 1e-2}}, train__steps=0, problems__eval=[])
    run = train(recipe, tmp_path / "r", display=QUIET)
    lines = metrics_of(run)
    assert lines[0]["tokens"] == 2 * 8, "both dialogues: two boxes of three tokens and two ends of turn"
    assert lines[-1]["loss"] < 0.2 < 2 < lines[0]["loss"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(run / "model"), AutoTokenizer.from_pretrained(run / "model")
    said = [{"role": role, "content": text} for role, text in turns[:3]]
    ids = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**ids, max_new_tokens=4, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.convert_ids_to_tokens(out) == ["\\boxed{", "3", "}", "<end>"]


# ---------------------------------------------------------------------------------------------------------------- what goes wrong


def failing_grader(problem: Problem, text: str) -> Verdict:
    """Takes the gold answer for right and fails on everything else."""
    if text == f"\\boxed{{{problem.answer}}}":
        return Verdict(VerdictKind.CORRECT, problem.answer)
    raise LookupError("no such table")


def test_a_broken_grader_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mulligan.tasks.builtin.guess.broken", failing_grader, raising=False)
    recipe = tiny(warmup__steps=0, grader={"kind": "mulligan.tasks.builtin.guess:broken", "max_failure_rate": 0.5})
    with pytest.raises(GraderError, match=r"step 0: the grader failed on .* attempts so far .*LookupError: no such table"):
        train(recipe, tmp_path / "r", display=QUIET)
    assert not (tmp_path / "r" / "model").exists()
    (rows,) = rollouts_of(tmp_path / "r").values()
    assert any("LookupError: no such table" in (a["reason"] or "") for row in rows for a in row["attempts"]), "the evidence stays"


def test_a_broken_grader_within_the_limit_teaches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ungradable dialogues carry no gradient: where nothing else was played, the weights stay as they are."""
    monkeypatch.setattr("mulligan.tasks.builtin.guess.broken", failing_grader, raising=False)
    recipe = tiny(warmup__steps=0, problems__eval=[], train__steps=1, grader={"kind": "mulligan.tasks.builtin.guess:broken", "max_failure_rate": 1.0})
    run = train(recipe, tmp_path / "r", display=QUIET)
    (rows,) = rollouts_of(run).values()
    ungradable = [row for row in rows if row["attempts"][-1]["outcome"] == "ungradable"]
    assert len(ungradable) >= 14
    assert not any(any(row["advantages"]) for row in ungradable)
    (line,) = metrics_of(run)
    assert line["share_ungradable"] == pytest.approx(len(ungradable) / 16)


def test_a_faulty_recipe_leaves_no_folder(tmp_path: Path):
    with pytest.raises(ConfigError, match="no built-in task"):
        train(tiny(problems__train="builtin:gues"), tmp_path / "r", display=QUIET)
    assert not (tmp_path / "r").exists()


def test_a_faulty_feedback_template_shows_what_fields_there_are(tmp_path: Path):
    with pytest.raises(ConfigError, match=re.escape("protocol.feedback: unknown field {hnit}")):
        train(tiny(protocol__feedback="{hnit} {n}"), tmp_path / "r", display=QUIET)


# ------------------------------------------------------------------------------------------------------------------------ again


def test_resume_takes_the_runs_own_recipe(tmp_path: Path):
    with pytest.raises(Killed):
        train(tiny(), tmp_path / "r", display=KillingDisplay(4))
    with pytest.raises(ConfigError, match=r"optimizer\.lr: 0\.003 in .*, 0\.1 now"):
        train(tiny(optimizer__lr=0.1), tmp_path / "r", resume=True, display=QUIET)
    with pytest.raises(RunError, match="holds no run"):
        train(tiny(), tmp_path / "nothing", resume=True, display=QUIET)
    assert dump_recipe(tiny()) == json.loads((tmp_path / "r" / "recipe.json").read_text())


def test_a_player_has_the_recipes_answer_format(finished: Path):
    player = make_player(tiny(grader__format="####"), load_policy(ModelConfig(path=str(finished / "model"))))
    player.grader.close()
    assert player.answer_format == "####"
