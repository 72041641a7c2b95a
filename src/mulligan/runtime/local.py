"""One process: sampler and learner share the policy's parameters, so a new policy needs no copy and no synchronisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mulligan.chat import Chat
from mulligan.config import Recipe
from mulligan.grading import make_grader
from mulligan.learning.batch import TrainSequence
from mulligan.learning.experience import make_experience
from mulligan.learning.learner import Learner
from mulligan.learning.optimizer import CombinedOptimizer, make_optimizer
from mulligan.model import Policy, Precision, load_policy
from mulligan.protocol import Protocol
from mulligan.rollout import Player, require_unbroken
from mulligan.sampling import SamplingParams
from mulligan.sampling.local import LocalSampler
from mulligan.tasks import demonstrator
from mulligan.types import Group, Problem, Rollout, Transcript
from mulligan.warmup import read_dialogues, scripted


def make_player(recipe: Recipe, policy: Policy, *, precision: Precision = "exact") -> Player:
    """The player of a recipe's protocol for a policy: what evaluation needs, without a learner. Raises ModelError where the policy cannot
    be sampled in this precision."""
    extra = policy.model.generation_config.eos_token_id if policy.model.generation_config is not None else None
    ends = [] if extra is None else [extra] if isinstance(extra, int) else list(extra)
    chat = Chat(policy.tokenizer, extra_end_ids=ends)
    sampler = LocalSampler(policy, max_rows=recipe.sampling.max_rows, prefill_tokens=recipe.sampling.prefill_tokens, precision=precision)
    return Player(Protocol(recipe.protocol, recipe.attempts, recipe.reward), chat, make_grader(recipe.grader), sampler, recipe.grader.format)


class LocalWorkers:
    """Everything that a step needs, wired from a recipe. `folder` is the run folder (a `tiny:` model is built in it)."""

    def __init__(self, recipe: Recipe, folder: Path, on_done: Callable[[Rollout], None] | None = None):
        if recipe.train.threads:
            torch.set_num_threads(recipe.train.threads)
        self.recipe = recipe
        self.on_done = on_done
        self.policy = load_policy(recipe.model, seed=recipe.seed, folder=folder / "initial_model")
        self.player = make_player(recipe, self.policy)
        """Exact: for evaluation and demonstrations."""
        exact = recipe.sampling.rollout_precision == "exact"
        self.rollout_player = self.player if exact else make_player(recipe, self.policy, precision=recipe.sampling.rollout_precision)
        self.params = SamplingParams(recipe.sampling.temperature, recipe.sampling.top_p)
        # Made only once the warm-up is over: the KL is to the model as reinforcement learning finds it.
        self._learner: Learner | None = None
        self._warmup: tuple[Learner, CombinedOptimizer] | None = None
        self._dialogues: list[Transcript] | None = None

    @property
    def learner(self) -> Learner:
        if self._learner is None:
            self._learner, self._warmup = Learner(self.policy, self.recipe), None
        return self._learner

    # ------------------------------------------------------------------------------------------------------- a step

    def rollout(self, problems: Sequence[Problem], *, step: int) -> list[Group]:
        groups = self.rollout_player.play(
            problems, seed=self.recipe.seed, step=step, group_size=self.recipe.train.group_size, params=self.params, on_done=self.on_done
        )
        require_unbroken(groups, step)
        return groups

    def update(self, groups: Sequence[Group], *, step: int, lr_scale: float) -> tuple[dict[str, float], list[np.ndarray]]:
        experience = make_experience(groups, self.learner, self.recipe)
        metrics = self.learner.update(experience.sequences, step=step, lr_scale=lr_scale)
        return experience.metrics | metrics, experience.advantages

    def warm_up(self, problems: Sequence[Problem], *, step: int, lr_scale: float) -> dict[str, float]:
        learner, optimizer = self._warming()
        if self.recipe.warmup.data:
            if self._dialogues is None:
                self._dialogues = read_dialogues(self.recipe.warmup.data, self.player.chat)
            rng = np.random.default_rng([self.recipe.seed, step])
            chosen = rng.choice(len(self._dialogues), min(self.recipe.warmup.batch_size, len(self._dialogues)), replace=False)
            transcripts = [self._dialogues[i] for i in chosen]
        else:
            opener = scripted(self.player.chat, demonstrator(self.recipe.problems.train))
            groups = self.player.play(problems, seed=self.recipe.seed, step=step, stage="warmup", open_dialogue=opener)
            require_unbroken(groups, step)
            transcripts = [r.transcript for g in groups for r in g.rollouts]
        return learner.imitate([s for t in transcripts for s in TrainSequence.contexts_of(t)], optimizer, step=step, lr_scale=lr_scale)

    def _warming(self) -> tuple[Learner, CombinedOptimizer]:
        if self._warmup is None:
            learner = Learner(self.policy, self.recipe, reference=False)
            self._warmup = learner, make_optimizer(self.policy.model.named_parameters(), self.recipe.warmup.optimizer)
        return self._warmup

    # -------------------------------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        if self._warmup is not None:
            return {"warmup": {"model": self.policy.model.state_dict(), "version": self.policy.version, "optimizer": self._warmup[1].state_dict()}}
        return {"learner": self.learner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "warmup" in state:
            _, optimizer = self._warming()
            self.policy.model.load_state_dict(state["warmup"]["model"])
            self.policy.version = state["warmup"]["version"]
            optimizer.load_state_dict(state["warmup"]["optimizer"])
        else:
            self.learner.load_state_dict(state["learner"])

    def save_model(self, folder: Path) -> None:
        self.policy.model.save_pretrained(folder, safe_serialization=True)
        self.policy.tokenizer.save_pretrained(folder)

    def close(self) -> None:
        self.player.grader.close()
        self.rollout_player.grader.close()
