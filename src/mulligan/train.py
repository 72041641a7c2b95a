"""The training loop: problems -> rollouts -> advantages -> update, once per step, on whatever `Workers` do the work.

Read `_train` first: it is the whole loop. Everything drawn at random is keyed by (seed, step, ...), so that a run is replayed
by its recipe, and a resumed run continues to the bit.
"""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from mulligan import checkpoint
from mulligan.config import Recipe
from mulligan.display import Display
from mulligan.errors import ConfigError, GraderError, MulliganError, RunError
from mulligan.evaluation import remove_evaluation
from mulligan.learning.schedule import learning_rate
from mulligan.plan import Plan, make_plan, write_set_aside
from mulligan.runlog import RunFolder, is_trained
from mulligan.runtime import Workers
from mulligan.runtime.local import LocalWorkers
from mulligan.transcripts import rollout_table, write_table
from mulligan.types import Group, Outcome, Problem

NEW_STATE: dict[str, Any] = {"step": 0, "tokens": 0, "seconds": 0.0, "graded": 0, "ungradable": 0, "answered": 0, "broken": 0}


def train(recipe: Recipe, out: Path, *, resume: bool = False, display: Display | None = None) -> Path:
    """Run a recipe in the run folder `out`; returns it. With `resume`, continue from its newest whole checkpoint.

    Raises:
        ConfigError, DataError, ModelError, ContextOverflow: found before anything heavy is loaded.
            Of these ConfigError with `resume`: the recipe trains otherwise than the run's own, on other problems, or less than what is done.
        RunError: the folder holds a run already (without `resume`) or none (with it); the disk is full or refuses; every dialogue of a step broke, or
            the feedback function raised on more than `grader.max_failure_rate` of the failed attempts.
        GraderError: more than that share of the verdicts are failures of the grader itself.
    """
    plan = make_plan(recipe)
    with _full_disk_is_told(out), _open_to_go_on(out, plan) if resume else RunFolder.create(out, recipe, data_hashes=plan.data_hashes) as run:
        _train(recipe, run, plan, display or Display(), resume=resume)
    return run.path


_DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextmanager
def _full_disk_is_told(out: Path) -> Iterator[None]:
    """Raises RunError for what any writer of a run raises when the disk refuses; safetensors have an error of their own (what is read of them is
    checked where it is read)."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in _DISK_REFUSES:
            raise
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{out}: the run cannot be written ({reason}): free space, then the same command goes on (mulligan train: with --resume)") from error


def _train(recipe: Recipe, run: RunFolder, plan: Plan, display: Display, *, resume: bool) -> None:
    write_set_aside(run.path, [plan.train_set, *plan.eval_sets])
    display.announce(plan, run.path)
    workers = LocalWorkers(recipe, run.path, on_done=display.rollout_done)
    state = _restore(run, workers) if resume else dict(NEW_STATE)
    warmup_steps, began = recipe.warmup.steps, time.monotonic() - state["seconds"]

    with closing(workers), display.running(recipe, state):
        while not _finished(recipe, state):
            started = time.monotonic()
            step = state["step"] - warmup_steps  # below 0: supervised warm-up
            if step < 0:
                metrics = _warm_up_step(recipe, workers, plan.problems, state["step"])
            else:
                groups = workers.rollout(problems_of_step(plan.problems, step, recipe.train.problems_per_step, recipe.seed), step=step)
                sampled = time.monotonic()
                try:
                    _check_grader(state, groups, recipe, step)
                    _check_feedback(state, groups, recipe, step)
                except (GraderError, RunError):  # the evidence is in this step's dialogues
                    write_table(run.rollout_path(step), rollout_table(groups, stage="train", step=step))
                    raise
                # With max_tokens the run ends by tokens, and `steps` is only what the schedule's warm-up and decay are counted in.
                progress = state["tokens"] / recipe.train.max_tokens if recipe.train.max_tokens else step / recipe.train.steps
                lr_scale = learning_rate(progress, recipe.optimizer, recipe.train.steps)
                learned, advantages = workers.update(groups, step=step, lr_scale=lr_scale)
                metrics = rollout_metrics(groups) | learned | {"lr": lr_scale * recipe.optimizer.lr, "seconds_sampling": sampled - started}
                state["tokens"] += sum(g.num_sampled for g in groups)
                if recipe.log.rollouts:
                    write_table(run.rollout_path(step), rollout_table(groups, stage="train", step=step, advantages=advantages))
            state["step"] += 1
            state["seconds"] = time.monotonic() - began
            metrics |= {"seconds": time.monotonic() - started, "tokens_total": state["tokens"]}
            if recipe.train.eval_every and recipe.problems.eval and step >= 0 and (step + 1) % recipe.train.eval_every == 0:
                metrics |= plan.evaluate(workers.player, run.path / f"eval_{step + 1:06d}", model=f"{run.path} after {step + 1} steps")
            run.log_metrics(state["step"] - 1, {"stage": "warmup" if step < 0 else "train", "train_step": step, **metrics})
            display.step_done(state, metrics)
            if state["step"] % recipe.log.checkpoint_every == 0 or _finished(recipe, state):
                checkpoint.save(run.checkpoints, state["step"], {"run": state, "workers": workers.state_dict()}, keep=recipe.log.keep_checkpoints)

        workers.save_model(run.model)
        run.write_model_card(plan.problems_described)
        if recipe.problems.eval:
            plan.evaluate(workers.player, run.path, model=str(run.model), fingerprint=workers.policy.fingerprint(), on_done=display.rollout_done)


def _finished(recipe: Recipe, state: dict[str, Any]) -> bool:
    if recipe.train.max_tokens is not None and recipe.train.steps:  # 0 steps: the warm-up alone
        return state["step"] >= recipe.warmup.steps and state["tokens"] >= recipe.train.max_tokens
    return state["step"] >= recipe.warmup.steps + recipe.train.steps


def _open_to_go_on(out: Path, plan: Plan) -> RunFolder:
    """Raises RunError if the run is finished and nothing is left to go on from: to begin anew would throw away what it logged. ConfigError if it would go
    on with other problems."""
    run = RunFolder.open(out, plan.recipe)
    try:
        if is_trained(out) and checkpoint.latest(run.checkpoints) is None:
            raise RunError(f"{out} is trained and keeps no checkpoint to go on from: train its model further with model.path={run.model} and another --out")
        _note_changed_problems(run, plan)
    except MulliganError:
        run.close()
        raise
    return run


def _note_changed_problems(run: RunFolder, plan: Plan) -> None:
    """Compare the problems with those that the run began with. Other ones to evaluate on are noted in the manifest.

    Raises:
        ConfigError: those to train on are others. Not if the grader's deadline is: another one may have set problems aside.
    """
    began_with = run.manifest().get("data") or {}
    for source, now in plan.data_hashes.items():
        before = began_with.get(source, now)
        if before == now:
            continue
        if source == plan.recipe.problems.train and "grader.deadline" not in run.changes:
            raise ConfigError(f"problems.train: {source} has changed since the run began: restore it or choose another --out")
        run.changes[f"problems of {source}"] = [before, now]


def _restore(run: RunFolder, workers: Workers) -> dict[str, Any]:
    """Load the newest whole checkpoint and drop what was logged after it; from the start where there is none yet."""
    state = dict(NEW_STATE)
    path = checkpoint.latest(run.checkpoints)
    if path is not None:
        saved = checkpoint.load(path)
        _require_as_long(run, saved["run"])
        workers.load_state_dict(saved["workers"])
        state |= saved["run"]
    if not _finished(run.recipe, state):
        _take_back_the_end(run)
    run.truncate_after(state["step"], state["step"] - run.recipe.warmup.steps)
    return state


def _require_as_long(run: RunFolder, state: Mapping[str, Any]) -> None:
    """Raises ConfigError if the recipe asks for less than what is done, which cannot be undone."""
    config, done = run.recipe.train, state["step"] - run.recipe.warmup.steps
    by_tokens = config.max_tokens is not None and config.steps > 0
    if not by_tokens and config.steps < done:
        raise ConfigError(f"train.steps = {config.steps}: {done} steps are done in {run.path}: set {done} or more, or choose another --out")
    # A run ends some tokens beyond its number, which it may keep.
    if by_tokens and "train.max_tokens" in run.changes and config.max_tokens < state["tokens"]:
        raise ConfigError(f"train.max_tokens = {config.max_tokens}: {state['tokens']} tokens are sampled in {run.path}: set {state['tokens']} or more, or choose another --out")


def _take_back_the_end(run: RunFolder) -> None:
    """Remove the model and the evaluation of a run that was finished and has steps left again: they would pass for the longer run's.

    The recipe of the longer run is written after this: wherever it is stopped, what is left of the shorter run stands beside its own recipe.
    The evaluation in RUN/eval, which reports take for the run's, is kept under a name that says of which model it is.
    """
    remove_evaluation(run.path)
    own = run.path / "eval"
    if own.is_dir():
        steps = sum(line.get("stage") == "train" for line in run.metrics())
        kept = run.path / f"eval-after-{steps}-steps"
        while kept.exists():
            kept = kept.with_name(f"{kept.name}-again")
        own.rename(kept)
    run.remove_model()


def _warm_up_step(recipe: Recipe, workers: Workers, problems: Sequence[Problem], step: int) -> dict[str, float]:
    config = recipe.warmup
    chosen = problems_of_step(problems, step, config.batch_size, recipe.seed + 1)
    return workers.warm_up(chosen, step=step, lr_scale=learning_rate(step / config.steps, config.optimizer, config.steps))


def _check_grader(state: dict[str, Any], groups: Sequence[Group], recipe: Recipe, step: int) -> None:
    """Count the verdicts that are failures of the grader itself, and stop a run that has too many.

    The share is of all verdicts of the run so far. A single failure is not a share yet, unless none is allowed.
    """
    attempts = [a for g in groups for r in g.rollouts for a in r.attempts]
    failed = [a.verdict.reason for a in attempts if a.outcome is Outcome.UNGRADABLE]
    state["graded"] += len(attempts)
    state["ungradable"] += len(failed)
    if failed and _too_many(state["ungradable"], state["graded"], recipe):
        raise GraderError(
            f"step {step}: the grader failed on {state['ungradable']} of {state['graded']} attempts so far (now with: {failed[0]}); "
            "mend it or raise grader.max_failure_rate"
        )


def _check_feedback(state: dict[str, Any], groups: Sequence[Group], recipe: Recipe, step: int) -> None:
    """As `_check_grader`, of the failed attempts that the feedback had to answer: where it raises, just the dialogues that failed would break, and what is
    left would look solved."""
    rollouts = [r for g in groups for r in g.rollouts]
    errors = [r.error for r in rollouts if r.error is not None]
    state["answered"] += sum(a.feedback is not None for r in rollouts for a in r.attempts) + sum(r.cut for r in rollouts) + len(errors)
    state["broken"] += len(errors)
    if errors and _too_many(state["broken"], state["answered"], recipe):
        raise RunError(
            f"step {step}: dialogues broke after {state['broken']} of {state['answered']} failed attempts so far (now with: {errors[0]}); "
            "mend protocol.feedback or raise grader.max_failure_rate"
        )


def _too_many(failures: int, tried: int, recipe: Recipe) -> bool:
    allowed = recipe.grader.max_failure_rate
    return failures > max(allowed * tried, 1 if allowed else 0)


def problems_of_step(problems: Sequence[Problem], step: int, count: int, seed: int) -> list[Problem]:
    """The problems of one step: a fresh permutation per pass over the data, a function of (seed, step) alone. No state to resume."""
    chosen = []
    permutations: dict[int, np.ndarray] = {}
    for position in range(step * count, (step + 1) * count):
        epoch, index = divmod(position, len(problems))
        if epoch not in permutations:
            permutations[epoch] = np.random.default_rng([seed, epoch]).permutation(len(problems))
        chosen.append(problems[permutations[epoch][index]])
    return chosen


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What a batch of rollouts did: means over its dialogues, shares of its attempts. A dialogue that broke, which it did after a failure, counts as
    unsolved, as in an evaluation; one that could not be graded does not count."""
    rollouts = [r for g in groups for r in g.rollouts if r.attempts and not r.ungradable]
    attempts = [a for g in groups for r in g.rollouts for a in r.attempts]
    count, tried = max(len(rollouts), 1), max(len(attempts), 1)
    metrics = {
        "reward": sum(r.reward for r in rollouts) / count,
        "accuracy": sum(r.solved for r in rollouts) / count,
        "accuracy_first": sum(r.solved_at == 1 for r in rollouts) / count,
        "attempts_used": sum(len(r.attempts) for r in rollouts) / count,
        "budget": sum(r.budget for r in rollouts) / count,
        "tokens_sampled": float(sum(g.num_sampled for g in groups)),
        "tokens_per_attempt": sum(a.num_tokens for a in attempts) / tried,
        "dialogues_broken": float(sum(r.error is not None for g in groups for r in g.rollouts)),
    }
    outcomes = Counter(a.outcome for a in attempts)
    metrics |= {f"share_{o.value}": outcomes[o] / tried for o in Outcome}
    return metrics
