"""What a reader of the figures must know: dialogues that went wrong, counted, and warnings in sentences that say what to change."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mulligan.evaluation.evaluation import Play
from mulligan.evaluation.intervals import Interval
from mulligan.evaluation.power import POINTS, Power, assumed_power, detectable_difference
from mulligan.evaluation.samples import ENOUGH
from mulligan.evaluation.values import ProblemValues
from mulligan.types import Outcome, Rollout

SMALL_SET = 100
"""Problem sets below this size get a warning: their intervals are about 20 points wide."""

FEW = re.compile(r"[\d,]+ problems? (?:is|are) few\b")
"""What every warning of that kind says (`few`)."""

COUNTED = re.compile(r"(?<=: )\d+(?= dialogues? | of \d+ problems )|(?<= points take )[\d,]+(?= \()")
"""The number by which alone evaluations of several seeds may differ in what they warn of."""

NOT_HELD_OUT = "not held out"
"""How every warning of a set that shares problems with training ends."""


def few(problems: int) -> str:
    return f"{problems:,} problem{' is' if problems == 1 else 's are'} few"


def trained_on(warnings: Sequence[str]) -> str | None:
    """What the warnings of several evaluations of one set say of problems that were trained on, as one: `SET: 3 to 7 of 100 problems ...`."""
    counts = {int(match[1]): text for text in warnings if text.endswith(NOT_HELD_OUT) and (match := re.search(r": (\d+) of \d+ problems", text))}
    if not counts:
        return None
    fewest, most = min(counts), max(counts)
    return counts[most] if fewest == most else counts[most].replace(f": {most} of", f": {fewest} to {most} of")


def count_faults(plays: Sequence[Play]) -> dict[str, dict[str, int]]:
    """Dialogues that are `ungradable`, broke (`errors`) or were `starved`: by budget (normal dialogues), by control, and over all samples."""
    kinds: dict[str, Callable[[Rollout], bool]] = {"ungradable": lambda r: r.ungradable, "errors": lambda r: r.error is not None, "starved": starved}
    found: dict[str, dict[str, int]] = {}
    for kind, test in kinds.items():
        counts = found[kind] = {str(play.k): 0 for play in plays if play.stage == "attempts"} | {"samples": 0}
        for play in plays:
            key = str(play.k) if play.stage == "attempts" else play.stage
            counts[key] = counts.get(key, 0) + sum(test(r) for g in play.groups for r in g.rollouts)
    return found


def starved(rollout: Rollout) -> bool:
    """Whether the dialogue's token cap, or the context, took attempts away that the budget allowed."""
    return rollout.truncated and not rollout.solved and (rollout.cut or len(rollout.attempts) < rollout.budget)


def size_warnings(name: str, accuracy: Mapping[int, Interval], power: Power | None) -> list[str]:
    """For a small set: how wide its intervals are, and what difference it could show. For a larger one: if it is too small for a difference of a few points."""
    widest = max(accuracy, key=lambda k: accuracy[k].width)
    interval = accuracy[widest]
    if interval.n >= SMALL_SET:
        points = max(POINTS)
        needed = power.problems_for[points] if power else 0
        return [f"{name}: {few(interval.n)} for small differences: {points} points take {needed:,} (80 % power, by the spread measured here)"] if interval.n < needed else []
    spread = power or assumed_power(interval.n)
    detectable = detectable_difference(spread.deviation, interval.n)
    basis = "by the spread measured here" if power else "if a quarter of them ends differently"
    needed = ", ".join(f"{points} points take {problems:,} problems" for points, problems in spread.problems_for.items())
    return [
        f"{name}: {few(interval.n)}: the 95 % interval at k = {widest} is {100 * interval.width:.0f} points wide; with 80 % power {'it shows' if interval.n == 1 else 'they show'} "
        f"paired differences from {100 * detectable:.0f} points on ({basis}): {needed}; use {SMALL_SET} problems or more"
    ]


def sample_warnings(
    name: str, samples: int, largest: int, beyond: Sequence[int], *, temperatures: Sequence[float] = (), best: tuple[int, float] | None = None, ungraded: bool = False
) -> list[str]:
    """`beyond`: numbers of attempts whose dialogues spend more tokens than all samples; `temperatures`: those sampled; `best`: a k and
    the one with the highest pass@k for it, None if two are as high; `ungraded`: not one sample could be graded."""
    found = []
    if samples and len(set(temperatures)) == 1:
        found.append(f"{name}: all samples were drawn at temperature {temperatures[0]:g}: independent sampling may do better at another one; draw at several (eval.temperatures=[0.6, 1.0, 1.4])")
    elif samples and best is not None and best[1] in (min(temperatures), max(temperatures)):
        end, further = ("hottest", "hotter") if best[1] == max(temperatures) else ("coldest", "colder")
        found.append(f"{name}: the {end} temperature that was sampled, {best[1]:g}, is the best for pass@{best[0]}: a {further} one may do better still; add one to eval.temperatures")
    if 0 < samples < largest:
        found.append(
            f"{name}: pass@k stops at k = {samples}, the number of samples; draw {largest} or more (better {ENOUGH * largest}) to reach k = {largest}"
        )
    elif 0 < samples < ENOUGH * largest:
        found.append(f"{name}: pass@{largest} from {samples} samples a problem is rough, and so is a choice of temperature by it; draw {ENOUGH * largest} or more")
    if samples and ungraded:
        found.append(f"{name}: none of the samples could be graded, so that nothing is said of drawing again; check the grader and its deadline")
    elif samples and beyond:
        which = ", ".join(map(str, beyond))
        found.append(f"{name}: no comparison at equal tokens for k = {which}: the dialogues spend more than {samples} samples do; draw more samples")
    return found


def listed(differing: Sequence[tuple[str, Any, Any]]) -> str:
    """Settings with both values, four at most."""
    return "; ".join(f"{key}: {a!r} and {b!r}" for key, a, b in differing[:4]) + (f"; and {len(differing) - 4} more" if len(differing) > 4 else "")


def rival_warnings(name: str, label: str, rival: ProblemValues, largest: int, *, unlike: Sequence[tuple[str, Any, Any]] = (), same_model: bool = False) -> list[str]:
    """Where the rival's pass@k ends before this evaluation's attempts do, or comes of too few samples or of one temperature, or of samples drawn otherwise
    (`unlike`: settings, with the value here and the rival's), so that it may be too low and the gain over it too high; and where it is the same model once more.
    Evaluations of earlier versions do not say how often they sampled."""
    name, reach = f"{name}, rival {label}", max(rival.quantities["passed"])
    found = [f"{name}: its pass@k stops at k = {reach}: evaluate it with --attempts up to {largest}, and with as many samples or more"] if reach < largest else []
    if unlike:
        found.append(f"{name}: its samples were not drawn as they are here ({listed(unlike)}): evaluate both alike")
    if same_model:
        found.append(f"{name}: it is the same model once more, and says nothing of what training did; give the evaluation of another one")
    heats = [heat for quantity in rival.quantities if (heat := quantity.removeprefix("passed@")) != quantity]
    drawn = [by_k[1].max() for heat in heats if (by_k := rival.quantities.get(f"samples:graded@{heat}"))]
    return found + (sample_warnings(name, int(max(drawn)), min(reach, largest), (), temperatures=[float(heat) for heat in heats]) if drawn else [])


def fault_warnings(name: str, faults: Mapping[str, Mapping[str, int]]) -> list[str]:
    found = []
    if count := sum(faults["ungradable"].values()):
        found.append(
            f"{name}: {_dialogues(count)} could not be graded and {'is' if count == 1 else 'are'} left out of the figures; raise the grader's deadline or check its answers"
        )
    if count := sum(faults["errors"].values()):
        found.append(f"{name}: {_dialogues(count)} broke and {'counts' if count == 1 else 'count'} as unsolved; see column error of the dialogues (often: too long for the context)")
    if count := sum(faults["starved"].values()):
        found.append(
            f"{name}: {_dialogues(count)} {'was' if count == 1 else 'were'} ended by the token cap with attempts left and {'counts' if count == 1 else 'count'} as unsolved: raise protocol.max_dialogue_tokens "
            "(up to the model's context), or lower protocol.max_attempt_tokens"
        )
    return found


def cut_warnings(name: str, rollouts: Sequence[Rollout]) -> list[str]:
    """Where most attempts ended before they gave an answer: the figures then speak of the cap. Without a number, so that seeds warn alike."""
    outcomes = [attempt.outcome for rollout in rollouts for attempt in rollout.attempts]
    if 2 * outcomes.count(Outcome.TRUNCATED) <= len(outcomes):
        return []
    return [f"{name}: most attempts were cut by a token cap before they gave an answer: raise protocol.max_attempt_tokens, or ask for the answer's format (protocol.system)"]


def _dialogues(count: int) -> str:
    return f"{count} dialogue{'' if count == 1 else 's'}"
