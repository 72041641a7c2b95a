"""The recipe: frozen pydantic models read from TOML, with dotted overrides from the command line. Torch-free.

Every fault of a recipe is reported at once, each with the nearest known key or the values allowed, before anything heavy loads.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from mulligan.errors import ConfigError
from mulligan.recipe_faults import explain

MOST_SEED = 2**63 - 1
"""What torch's generators take."""

LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 100.0
"""Far beyond them, logits divided by the temperature leave float32; long before, what is drawn is the greedy choice, or any token alike."""


class Section(BaseModel):
    """Base of every section: frozen; an unknown key is a fault, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


# --------------------------------------------------------------------------------------------------------------- attempts


class AttemptBudget(Section):
    """The distribution of the number of attempts N: `weights[i]` is the probability of N = i + 1.

    Written `uniform(1,5)`, `fixed(3)`, or `weights(1,0,2)` (relative weights of 1, 2, 3 attempts).
    """

    text: str
    weights: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> AttemptBudget:
        """Parse the written form. Raises ValueError with the forms that are understood."""
        forms = "write 'uniform(1,5)', 'fixed(2)' or 'weights(1,1,2)'"
        match = re.fullmatch(r"\s*(uniform|fixed|weights)\s*\(([^()]*)\)\s*", str(text))
        if not match:
            raise ValueError(f"attempts: {text!r} is not a budget; {forms}")
        kind, inner = match[1], match[2]
        try:
            numbers = [float(x) for x in inner.split(",")]
        except ValueError:
            raise ValueError(f"attempts: {text!r} holds something that is not a number; {forms}") from None
        if kind != "weights" and not all(n.is_integer() for n in numbers):
            raise ValueError(f"attempts: {text!r}: the number of attempts must be whole; {forms}")
        if kind == "fixed" and len(numbers) == 1:
            low = high = int(numbers[0])
        elif kind == "uniform" and len(numbers) == 2:
            low, high = int(numbers[0]), int(numbers[1])
        elif kind == "weights":
            if min(numbers) < 0 or not sum(numbers) > 0 or sum(numbers) == float("inf"):
                raise ValueError(f"attempts: {text!r}: weights must be finite, at least 0, and not all 0")
            return cls(text=f"weights({inner})", weights=tuple(n / sum(numbers) for n in numbers))
        else:
            raise ValueError(f"attempts: {text!r} has the wrong number of values; {forms}")
        if low < 1:
            raise ValueError(f"attempts: {text!r}: a budget must allow at least 1 attempt")
        if high < low:
            raise ValueError(f"attempts: {text!r}: the upper bound {high} is below the lower bound {low}")
        if high > 1000:
            raise ValueError(f"attempts: {text!r}: at most 1000 attempts")
        share = 1.0 / (high - low + 1)
        written = f"fixed({low})" if kind == "fixed" else f"uniform({low},{high})"
        return cls(text=written, weights=(0.0,) * (low - 1) + (share,) * (high - low + 1))

    @property
    def max_attempts(self) -> int:
        return max(i + 1 for i, w in enumerate(self.weights) if w > 0)

    def __str__(self) -> str:
        return self.text


def _budget(value: Any) -> Any:
    if isinstance(value, AttemptBudget):
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{value!r} is not a budget; write 'uniform(1,5)', 'fixed(2)' or 'weights(1,1,2)'")
    return AttemptBudget.parse(f"fixed({value})" if isinstance(value, int) else value)


Budget = Annotated[AttemptBudget, BeforeValidator(_budget)]


# --------------------------------------------------------------------------------------------------------------- sections


class TinyModel(Section):
    """A Llama configuration, trained from scratch over the small word-level vocabulary of the built-in tasks."""

    hidden_size: int = Field(default=128, ge=8)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    kv_heads: int | None = Field(default=None, ge=1, description="heads / kv_heads queries share a key; None: as many as heads")
    intermediate_size: int = Field(default=344, ge=8)
    max_position_embeddings: int = Field(default=512, ge=16)
    tie_word_embeddings: bool = False


class ModelConfig(Section):
    """`path`: a folder, a Hub id, a .gguf file, or `tiny:` (see the [model.tiny] table)."""

    path: str = Field(description="a folder, a Hub id, a .gguf file, package:NAME/FILE for one inside an installed package, or tiny: (see model.tiny)")
    tokenizer: str | None = Field(default=None, description="folder or Hub id; None: the model's own")
    revision: str | None = Field(default=None, description="branch, tag or commit on the Hub")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of the passes; weights that are trained stay float32")
    device: str = Field(default="auto", description="auto (CUDA where there is one) | cpu | cuda | cuda:1 | ...")
    gradient_checkpointing: bool = Field(default=False, description="compute activations again instead of keeping them: less memory, more time")
    tiny: TinyModel = TinyModel()

    @field_validator("path")
    @classmethod
    def _tiny_alone(cls, path: str) -> str:
        if not path.strip():
            raise ValueError("is empty; give a folder, a Hub id, a .gguf file or 'tiny:'")
        if path.startswith("tiny:") and path != "tiny:":
            raise ValueError("write 'tiny:' alone; its size is set in [model.tiny]")
        return path


class ProblemsConfig(Section):
    """Where questions come from; the same source strings as on the command line."""

    train: str = Field(description="a source: PATH.jsonl?question=COLUMN&answer=COLUMN, hub:ORG/NAME:SPLIT, gym:NAME?..., builtin:NAME?..., or A + B")
    eval: Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)] = Field(default=(), description="one source or several, evaluated at the end and every train.eval_every steps")
    limit: int | None = Field(default=None, ge=1, description="train on the first so many; None: all")


class ProtocolConfig(Section):
    """How an attempt is asked for, ended and answered."""

    system: str = Field(default="Please reason step by step, and put your final answer within \\boxed{}.", description="system turn, with fields {n} and {s} (plural s); empty: none")
    question: str = Field(default="{question}", description="first user turn; fields {question}, {n}, {s}")
    state_budget: bool = Field(default=True, description="say in the prompt how many attempts there are")
    budget_text: str = Field(default=" You have {n} attempt{s} to answer the question.", description="appended to the system turn (or the question) when state_budget")
    feedback: str = Field(default=
        "verdict and attempts left",
        description="none | verdict | verdict and attempts left | a template with fields {n} {s} {attempt} {answer} {outcome} {reason} and the verdict's own | module:function",
    )
    feedback_role: Literal["user", "system"] = Field(default="user", description="the role of the feedback turn")
    hidden_feedback: str | None = Field(default=None, description="what a control of the evaluation says instead of the feedback, so that the verdict stays hidden; fields {n} {s}; None: 'Please give another answer.', with the attempts left where the feedback has them")
    history: Literal["full", "none"] = Field(default="full", description="none: every attempt sees the question and the number of attempts left, but no earlier attempt (a control)")
    stop: Literal["answer", "end_of_turn"] = Field(default="answer", description="where an attempt ends: at the token that closes its answer, or where the model ends its turn")
    max_attempt_tokens: int = Field(default=512, ge=1, description="what is longer is cut, and counts as without an answer")
    max_dialogue_tokens: int = Field(default=2048, ge=2, description="prompt, attempts and feedback together")
    budget_per: Literal["group", "rollout"] = Field(default="group", description="whether the rollouts of a group share one stated budget")


class RewardConfig(Section):
    """+1 / -0.5 / -1 in the paper. `discount` multiplies the success reward by discount^(t-1) for a success at attempt t;
    `no_answer_cost` is taken off at every attempt without an answer."""

    correct: float = Field(default=1.0, description="an attempt was right")
    wrong: float = Field(default=-0.5, description="no attempt was right, but one had an answer")
    no_answer: float = Field(default=-1.0, description="no attempt had an answer")
    discount: float = Field(default=1.0, gt=0, le=1, description="a success at attempt t is worth correct x discount^(t-1)")
    no_answer_cost: float = Field(default=0.0, ge=0, description="taken off at every attempt without an answer")


ANSWER_FORMATS = ("boxed", "####", "Answer:", "<answer>", "last number")
REGEX_PREFIX = "regex:"
EXACT_FORMATS = ANSWER_FORMATS[:4]
"""Formats whose end an attempt's own text shows, so that `protocol.stop = "answer"` can end it there."""


class GraderConfig(Section):
    kind: str | None = Field(default=None, description="math | numeric | text | code | module:function; None: as the problem source says")
    format: str = Field(default="boxed", description="how an attempt marks its answer: boxed | #### | Answer: | <answer> | last number | regex:PATTERN (first group, or the whole, of the last match)")
    hints: bool = Field(default=False, description="math: verdicts carry the fields {hint} and {hint_kind} for feedback templates (unit, sign, count, form, base)")
    workers: int | None = Field(default=None, ge=1, description="processes; None: as many as there are cores, up to 8")
    deadline: float = Field(default=1.0, gt=0, description="seconds per answer")
    memory_mb: int = Field(default=1024, ge=64, description="megabytes that one answer may take (Linux)")
    code: bool = Field(default=False, description="allow problems whose answer is code, which is run in a sandbox (bubblewrap)")
    code_deadline: float = Field(default=10.0, gt=0, description="seconds per answer that is code, all its tests together")
    max_failure_rate: float = Field(default=0.01, ge=0, le=1, description="the run stops when more of the verdicts than this are ungradable, or when a feedback function raises on more of the failed attempts than this")

    @field_validator("format")
    @classmethod
    def _known_format(cls, text: str) -> str:
        if text in ANSWER_FORMATS:
            return text
        if not text.startswith(REGEX_PREFIX):
            near = difflib.get_close_matches(text.lower(), ANSWER_FORMATS, n=1, cutoff=0.6)
            known = ", ".join(repr(name) for name in ANSWER_FORMATS)
            raise ValueError(f"{text!r} is not known; use {known} or '{REGEX_PREFIX}PATTERN'" + (f" (did you mean {near[0]!r}?)" if near else ""))
        try:
            re.compile(text.removeprefix(REGEX_PREFIX), re.MULTILINE)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"{text!r} is not a regular expression ({error}): mend the pattern") from None
        return text


class SamplingConfig(Section):
    temperature: float = Field(default=1.0, ge=0, le=MOST_TEMPERATURE, description="0: greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="keep the most likely tokens up to this probability; 1: all")
    max_rows: int = Field(default=64, ge=1, description="dialogues decoded at once")
    rollout_precision: Literal["exact", "int8"] = Field(default="exact", description="int8: training rollouts in 8 bits on the processor, about twice as fast, with truncated importance weights; evaluation stays exact")
    prefill_tokens: int = Field(default=1024, ge=16, description="prompt and feedback tokens read in one forward pass, at most")


AdvantageName = Literal["gae", "grpo", "dr_grpo", "rloo", "pass@k", "reinforce++", "attempt"]


class AdvantageConfig(Section):
    name: AdvantageName = Field(default="attempt", description="how credit is given; attempt: per attempt, against the mean outcome of the rollouts with the same budget that reached it")
    gamma: float = Field(default=1.0, ge=0, le=1, description="gae: discount per sampled token")
    lam: float = Field(default=0.99, ge=0, le=1, description="gae: lambda per sampled token")
    normalize: Literal["none", "batch"] = Field(default="batch", description="whiten over the batch's tokens (gae, reinforce++) or scale by the batch's standard deviation (attempt)")
    one_step: bool = Field(default=False, description="attempt: 1 - V(t) on success and V(t+1) - V(t) on failure instead of outcome - V(t)")
    k: int = Field(default=5, ge=1, description="pass@k: samples of which one is to be right, whatever reward.* says; train.group_size must be above it")
    min_count: int = Field(default=4, ge=1, description="attempt: rollouts of the group needed for a baseline of its own; else the batch's")


class LossConfig(Section):
    clip_low: float = Field(default=0.2, ge=0, description="the probability ratio counts down to 1 - clip_low")
    clip_high: float = Field(default=0.2, ge=0, description="and up to 1 + clip_high")
    mean: Literal["token", "sequence", "constant"] = Field(default="token", description="token: over the step's sampled tokens; sequence: mean per dialogue, then over dialogues; constant: dialogues x max_dialogue_tokens (Dr. GRPO); with protocol.history=none an attempt counts as a dialogue")
    kl: float = Field(default=0.0, ge=0, description="coefficient of the KL to the model that reinforcement learning starts from (after the warm-up)")
    kl_estimator: Literal["k1", "k2", "k3"] = Field(default="k3", description="Schulman's estimators of the KL from samples")
    kl_in_reward: bool = Field(default=False, description="take the KL off the reward of every token instead of adding it to the loss")
    entropy: float = Field(default=0.0, ge=0, description="coefficient of the entropy bonus")
    value: float = Field(default=0.5, ge=0, description="coefficient of the critic's loss")
    value_clip: float = Field(default=0.2, ge=0, description="0: off")
    importance_cap: float | None = Field(default=None, ge=0, description="truncated importance weights between sampler and learner; 0: off; None: 2 with 8-bit rollouts, else off")


class CriticConfig(Section):
    kind: Literal["head", "separate"] = Field(default="separate", description="gae: a head on the policy, or a model of its own")
    lr: float | None = Field(default=None, gt=0, description="None: the policy's")
    warmup_steps: int = Field(default=0, ge=0, description="steps on which only the critic learns")


class OptimizerConfig(Section):
    name: Literal["adamw", "muon"] = Field(default="adamw", description="muon: matrices by Muon, the rest by AdamW")
    lr: float = Field(default=1e-6, gt=0, description="peak learning rate")
    muon_lr: float = Field(default=2e-2, gt=0, description="muon: for matrices; lr is for everything else")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    grad_clip: float = Field(default=1.0, ge=0, description="0: off")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="constant", description="how the rate falls after its warm-up")
    warmup: float = Field(default=0.03, ge=0, description="below 1: share of the run; else steps")
    decay: float = Field(default=1.0, ge=0, le=1, description="share of the run, at its end, over which the rate falls")
    final: float = Field(default=0.0, ge=0, le=1, description="last learning rate as a share of the peak")


class WarmupConfig(Section):
    """Supervised warm-up on dialogues before reinforcement learning; `steps = 0`: none."""

    steps: int = Field(default=0, ge=0, description="0: none")
    batch_size: int = Field(default=64, ge=1, description="dialogues a step")
    data: str | None = Field(default=None, description="JSONL of {\"messages\": [...]}; None: the built-in task's own dialogues, of other sources the gold answer in a box")
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-5)


class TrainConfig(Section):
    steps: int = Field(default=100, ge=0, description="of reinforcement learning; 0: the warm-up alone. With max_tokens they do not end the run")
    max_tokens: int | None = Field(default=None, ge=1, description="end, and scale the schedule, by sampled tokens instead of steps (equal tokens for every arm)")
    problems_per_step: int = Field(default=16, ge=1, description="problems of a batch of rollouts")
    group_size: int = Field(default=8, ge=1, description="rollouts of a problem")
    minibatches: int = Field(default=1, ge=1, description="optimiser steps per batch of rollouts")
    epochs: int = Field(default=1, ge=1, description="passes over a batch of rollouts")
    micro_batch_tokens: int = Field(default=4096, ge=16, description="tokens in one forward and backward pass; on the processor about 1,000 are fastest, since they stay in its cache")
    eval_every: int = Field(default=0, ge=0, description="evaluate every so many steps of reinforcement learning, on problems.eval; 0: at the end alone")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; None: torch's default")


class LogConfig(Section):
    checkpoint_every: int = Field(default=10, ge=1, description="steps; a run goes on from its last checkpoint")
    keep_checkpoints: int = Field(default=2, ge=1, description="the newest so many")
    rollouts: bool = Field(default=True, description="keep every rollout: tokens, mask, log-probs, verdicts, advantages (Parquet)")
    tensorboard: bool = Field(default=False, description="write the metrics for TensorBoard as well (pip install tensorboard)")


ControlName = Literal["history_blind", "verdict_hidden", "random_verdict", "other_history", "false_wrong"]
CONTROLS: tuple[ControlName, ...] = get_args(ControlName)
"""What an evaluation can change about a dialogue, to see what the failed attempts brought."""

MOST_ATTEMPTS = 1000


def parse_controls(text: str) -> tuple[ControlName, ...]:
    """`all`, `none`, or names with commas, in the order of CONTROLS. Raises ValueError naming the unknown ones, with the nearest known name."""
    if text.strip() in ("all", "none", ""):
        return CONTROLS if text.strip() == "all" else ()
    names = [part.strip() for part in text.split(",")]
    faults = []
    for name in names:
        if name not in CONTROLS:
            near = difflib.get_close_matches(name, CONTROLS, n=1, cutoff=0.5)
            faults.append(f"{name!r} is not known; " + (f"did you mean {near[0]!r}?" if near else f"use all, or some of {', '.join(CONTROLS)}"))
    if faults:
        raise ValueError("\n".join(faults))
    return tuple(name for name in CONTROLS if name in names)


def default_attempts(trained: int) -> str:
    """Numbers of attempts to evaluate with, where none are given: 1 to the largest budget of training, and two more than that."""
    beyond = min(trained + 2, MOST_ATTEMPTS)
    return (f"1-{trained}" if trained > 1 else "1") + (f",{beyond}" if beyond > trained else "")


class EvalConfig(Section):
    """What the run evaluates at its end (and every `train.eval_every` steps)."""

    attempts: Annotated[str | None, BeforeValidator(lambda value: str(value) if type(value) is int else value)] = Field(default=None, description="numbers of attempts to allow, e.g. 1-7; None: 1 to the largest budget of training, and that plus 2")
    samples: int = Field(default=0, ge=0, description="independent samples per problem and temperature for pass@k (4 per attempt are enough); 0: none")
    temperature: float = Field(default=0.0, ge=0, le=MOST_TEMPERATURE, description="of the dialogues; 0: greedy")
    temperatures: tuple[Annotated[float, Field(ge=LEAST_TEMPERATURE, le=MOST_TEMPERATURE)], ...] = Field(default=(1.0,), description="of the pass@k samples; with several, each problem's is chosen on other problems")
    controls: Annotated[tuple[ControlName, ...], BeforeValidator(lambda value: parse_controls(value) if isinstance(value, str) else value)] = Field(default=(), description="all, or names: history_blind, verdict_hidden, random_verdict, other_history, false_wrong")
    limit: int = Field(default=200, ge=0, description="0: all")

    @field_validator("temperature")
    @classmethod
    def _greedy_or_drawn(cls, temperature: float) -> float:
        if 0 < temperature < LEAST_TEMPERATURE:
            raise ValueError(f"{temperature:g} is as good as greedy: write 0, or {LEAST_TEMPERATURE:g} or more")
        return temperature

    @field_validator("temperatures")
    @classmethod
    def _some_temperature(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        if not temperatures:
            raise ValueError("give at least one, e.g. [1.0]")
        return temperatures

    @model_validator(mode="before")
    @classmethod
    def _earlier_name(cls, table: Any) -> Any:
        """Run folders of before there were several temperatures hold `sample_temperature`."""
        if isinstance(table, dict) and "sample_temperature" in table and "temperatures" not in table:
            return {key: value for key, value in table.items() if key != "sample_temperature"} | {"temperatures": [table["sample_temperature"]]}
        return table


class Recipe(Section):
    name: str = Field(default="run", description="what the run is called")
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="of everything that is drawn at random")
    attempts: Budget = Field(default=AttemptBudget.parse("uniform(1,5)"), description="how many attempts a dialogue may take: uniform(1,5) | fixed(2) | weights(1,1,2), relative weights of 1, 2, 3 attempts")
    model: ModelConfig
    problems: ProblemsConfig
    protocol: ProtocolConfig = ProtocolConfig()
    reward: RewardConfig = RewardConfig()
    grader: GraderConfig = GraderConfig()
    sampling: SamplingConfig = SamplingConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    loss: LossConfig = LossConfig()
    critic: CriticConfig = CriticConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    warmup: WarmupConfig = WarmupConfig()
    train: TrainConfig = TrainConfig()
    log: LogConfig = LogConfig()
    eval: EvalConfig = EvalConfig()

    @property
    def importance_cap(self) -> float:
        """The cap of the truncated importance weights; 0: none. 8-bit rollouts come from a policy that is not quite the learner's."""
        if self.loss.importance_cap is None:
            return 2.0 if self.sampling.rollout_precision == "int8" else 0.0
        return self.loss.importance_cap

    @property
    def eval_attempts(self) -> str:
        """The numbers of attempts that the run is evaluated with."""
        return default_attempts(self.attempts.max_attempts) if self.eval.attempts is None else self.eval.attempts

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        faults = []
        dialogues = self.train.problems_per_step * self.train.group_size
        if self.protocol.max_attempt_tokens >= self.protocol.max_dialogue_tokens:
            faults.append("protocol.max_attempt_tokens must be below protocol.max_dialogue_tokens: lower the one or raise the other")
        if self.advantage.name in ("grpo", "dr_grpo", "rloo") and self.train.group_size < 2:
            faults.append(f"advantage.name = {self.advantage.name!r} compares the rollouts of a group: set train.group_size to 2 or more")
        if self.advantage.name == "pass@k" and self.train.group_size <= self.advantage.k:
            faults.append(f"advantage.name = 'pass@k' compares a rollout with sets of advantage.k = {self.advantage.k} others: set train.group_size above it")
        if self.train.minibatches > dialogues:
            faults.append(f"train.minibatches = {self.train.minibatches} is more than the {dialogues} dialogues of a step: lower it")
        if self.sampling.temperature < LEAST_TEMPERATURE:
            faults.append(f"sampling.temperature = {self.sampling.temperature:g} cannot explore: training needs {LEAST_TEMPERATURE:g} or more")
        if self.train.micro_batch_tokens < self.protocol.max_dialogue_tokens:
            faults.append("train.micro_batch_tokens is below protocol.max_dialogue_tokens: one dialogue must fit one pass; raise it")
        if self.sampling.rollout_precision == "int8" and self.loss.importance_cap == 0:
            faults.append("sampling.rollout_precision = 'int8' samples from a rounded policy: set loss.importance_cap above 0 (2 is usual) or drop it")
        if self.loss.kl_in_reward and self.loss.kl == 0:
            faults.append("loss.kl_in_reward without loss.kl: set loss.kl above 0 or drop kl_in_reward")
        if self.loss.kl_in_reward and self.advantage.name == "pass@k":
            faults.append("loss.kl_in_reward has no effect on advantage.name = 'pass@k', which sees what is solved and no reward: drop kl_in_reward")
        if self.loss.kl > 0 and self.loss.kl_estimator == "k1" and not self.loss.kl_in_reward:
            faults.append("loss.kl_estimator = 'k1' has no pull as a loss, only noise: set it to 'k2' or 'k3', or set loss.kl_in_reward")
        faults += self._format_faults()
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _format_faults(self) -> list[str]:
        """The prompt, the stop rule and the grader must speak of the same answer."""
        answer_format, faults = self.grader.format, []
        if answer_format not in EXACT_FORMATS and self.protocol.stop == "answer":
            faults.append(f"grader.format = {answer_format!r} has no end that a token could show: set protocol.stop = 'end_of_turn'")
        if answer_format != "boxed" and "\\boxed" in self.protocol.system + self.protocol.question:
            faults.append(f"grader.format = {answer_format!r}, but the prompt asks for \\boxed{{}}: say in protocol.system how the answer is to be marked")
        return faults


# ---------------------------------------------------------------------------------------------------------------- loading


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a TOML recipe and apply dotted overrides (`optimizer.lr=1e-5`).

    Raises:
        ConfigError: every fault at once: unreadable file, broken TOML, unknown key (with the nearest known one), bad value.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder: name a recipe, a .toml file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except ValueError as error:  # broken TOML, or a whole number of thousands of digits
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return parse_recipe(table, str(path), apply_overrides(table, overrides))


def parse_recipe(table: dict[str, Any], origin: str = "recipe", faults: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Validate a recipe given as a nested dict; faults found before (in overrides) are reported with the others."""
    found = list(faults)
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        found += [f"{origin}: {line}" for e in error.errors() for line in explain(e, Recipe)]
        raise ConfigError(found) from None
    if found:
        raise ConfigError(found)
    return recipe


def apply_overrides(table: dict[str, Any], overrides: list[str] | tuple[str, ...]) -> list[str]:
    """Set dotted overrides in a nested dict, in place; returns the faults, for `parse_recipe` to report with its own."""
    return [fault for text in overrides if (fault := _apply_override(table, text))]


def _apply_override(table: dict[str, Any], text: str) -> str | None:
    """Set one dotted key in place; returns the fault, or None."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        return f"override {text!r}: write key=value, e.g. optimizer.lr=1e-5"
    node = table
    *parents, last = key.strip().split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            return f"override {text!r}: {parent!r} is a value, not a section"
    node[last] = _toml_value(value.strip())
    return None


def _toml_value(text: str) -> Any:
    """A bare word is a string; anything TOML understands keeps its type; `null` is None."""
    if text in ("null", "none", "None") :
        return None if text != "none" else "none"
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except ValueError:  # no TOML, or a whole number of thousands of digits
        return text


def dump_recipe(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as JSON-able data; `parse_recipe` reads it back to an equal recipe."""
    table = recipe.model_dump(mode="json")
    table["attempts"] = recipe.attempts.text
    return table
