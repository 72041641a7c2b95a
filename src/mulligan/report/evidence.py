"""What a report may say of its arms: every figure asked for by name, from the evaluations' own figures or from values per problem.

Of a single seed and a single problem set the figures are those of eval.json, so that a report and an evaluation's table never
disagree. Over several seeds or sets they are made from values.parquet (`evaluation.compare`). What was not measured is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from mulligan.evaluation import Interval
from mulligan.evaluation.arms import Arm, find_arm
from mulligan.evaluation.attempts import ANSWERED_AGAIN, RATES, REPEATED, headline_budget
from mulligan.evaluation.compare import Floats, means, ratios, seed_means, share_kept
from mulligan.evaluation.comparison import (
    ACCURACY,
    ALL_QUESTIONS,
    GAIN,
    MEAN_OF_SETS,
    OVER_ALL,
    PASS,
    TOKENS,
    Measure,
    NothingShared,
    aligned,
    difference_rows,
    seed_pairs,
    shared_ks,
    shared_problems,
)
from mulligan.evaluation.controls import FALSE_WRONG_COUNTS
from mulligan.evaluation.faults import trained_on
from mulligan.evaluation.samples import TALLIED, Tally, fold_of, key_of
from mulligan.evaluation.tokens import EqualTokens, equal_tokens_of_seeds
from mulligan.report.joining import hulls, over_seeds, over_tables, without_bounds
from mulligan.report.rivals import given_rivals, same_samples
from mulligan.report.tables import intervals
from mulligan.tasks.builtin.strategies import BEST, BLIND, INDEPENDENT

ByK = dict[int, Interval]

BEST_SAMPLER = "the best possible sampler"
BLIND_SAMPLER = "the best sampler blind to the question"
SAMPLERS = {INDEPENDENT: BEST_SAMPLER, BLIND: BLIND_SAMPLER}
"""How ceilings are called as rivals, which are no models."""

_IN_EVAL_JSON = {ACCURACY: "accuracy", PASS: "pass_at_k", GAIN: "gain", TOKENS: "tokens_per_problem"}
_USED: Measure = (("attempts_used", 1.0),)
_BOUNDS = {ACCURACY: (0.0, 1.0), PASS: (0.0, 1.0), GAIN: (-1.0, 1.0), TOKENS: None}


class Evidence:
    """Arms with a baseline, and the *places* that figures are given for: each problem set, and over all sets where there are several.

    `head` is the arm that the report is about: the first that was trained with several attempts, else the first. A seed that was not evaluated, among
    others that were, is among `trained` alone.
    """

    def __init__(self, arms: Sequence[Arm], baseline: str | None = None):
        """Raises ConfigError: `baseline` is no arm's label or folder."""
        self.trained = list(arms)
        self.arms = [arm.evaluated() for arm in arms]
        several = [arm for arm in self.arms if (arm.trained_attempts or 1) > 1]
        self.head = (several or self.arms)[0]
        self.baseline = self._baseline(baseline)
        if self.head is self.baseline and len(self.arms) > 1:
            self.head = next(arm for arm in (*several, *self.arms) if arm is not self.baseline)
        self.colours = {arm.label: i for i, arm in enumerate(self.arms)}

    def _baseline(self, label: str | None) -> Arm | None:
        if label is not None:
            return self.arms[self.trained.index(find_arm(self.trained, label))]
        others = [arm for arm in self.arms if arm is not self.head]
        return next((arm for arm in others if arm.trained_attempts == 1), others[0] if others else None)

    # ---------------------------------------------------------------------------------------------------------- places

    @cached_property
    def sets(self) -> list[str]:
        """Every problem set that some arm was evaluated on."""
        return list(dict.fromkeys(name for arm in self.arms for name in arm.problem_sets))

    @property
    def evaluated(self) -> list[Arm]:
        return [arm for arm in self.arms if arm.problem_sets]

    @cached_property
    def over_all(self) -> list[str]:
        """The sets that figures over all are taken from: those of every evaluated arm, if there are several."""
        arms = self.evaluated
        shared = [name for name in self.sets if all(name in arm.problem_sets for arm in arms)]
        if all(arm.has_values for arm in arms):
            shared = [name for name in shared if shared_problems(arms, name)]
        return shared if len(shared) > 1 and all(arm.has_values for arm in arms) else []

    @cached_property
    def places(self) -> list[str]:
        """Over all (by set and by question, which are the same where the sets are of one size), then each set."""
        sizes = {len(arm.problems(name)) for arm in self.evaluated for name in self.over_all}
        return [*([MEAN_OF_SETS, *([ALL_QUESTIONS] if len(sizes) > 1 else [])] if self.over_all else []), *self.sets]

    @property
    def main(self) -> str | None:
        """Where the headline is taken: the mean of the sets, as in the paper, or the set that most arms share, of the head's."""
        if self.over_all:
            return MEAN_OF_SETS
        return max(self.head.problem_sets, key=lambda name: sum(name in arm.problem_sets for arm in self.arms), default=None)

    def _names(self, place: str) -> list[str]:
        return self.over_all if place in OVER_ALL else [place]

    # --------------------------------------------------------------------------------------------------------- figures

    def values(self, arm: Arm, measure: Measure, place: str) -> ByK:
        """An arm's accuracy, pass@k, gain or tokens by k; empty where it was not measured there."""
        names = self._names(place)
        if any(name not in arm.problem_sets for name in names):
            return {}
        if len(arm.members) == 1 and len(names) == 1:
            found = intervals(arm.members[0].problem_sets[names[0]].get(_IN_EVAL_JSON[measure]))
            if found or not arm.has_values:
                return found
        if not arm.has_values:
            return {}
        ks = shared_ks([(arm, measure)], names)
        return self._means(arm, measure, ks, place, _BOUNDS[measure]) if ks else {}

    def budget(self, arm: Arm, place: str) -> int:
        """The number of attempts that figures of an arm are given for where there is one of each: its trained budget; the largest that was evaluated if that
        one was not, or was 1."""
        return headline_budget(self.values(arm, ACCURACY, place), arm.trained_attempts)

    @property
    def fewest(self) -> str:
        """The number of attempts from which a rise is counted, in words: 1, unless an arm was not evaluated with one."""
        tables = [m.problem_sets[name].get("accuracy") or {} for arm in self.evaluated for name in arm.problem_sets for m in arm.members]
        return "1" if all("1" in table for table in tables if table) else "the fewest"

    def rise(self, arm: Arm, place: str, k: int, start: int = 1) -> Interval | None:
        """accuracy@k - accuracy@start, paired within each model and problem; None without values per problem."""
        return self.rises(arm, place, [k], start).get(k)

    def rises(self, arm: Arm, place: str, ks: Sequence[int], start: int = 1) -> ByK:
        """`rise` to each k."""
        names = self._names(place)
        if not ks or not arm.has_values or any(name not in arm.problem_sets for name in names) or not {start, *ks} <= set(shared_ks([(arm, ACCURACY)], names)):
            return {}
        if not (sides := _aligned([(arm, ACCURACY)], names, [start, *ks])):
            return {}
        found = means([x[:, :, 1:] - x[:, :, :1] for x in sides[0]], weighting=OVER_ALL.get(place, "questions"), bounds=(-1.0, 1.0))
        return dict(zip(ks, found, strict=True))

    def headroom(self, arm: Arm, place: str, k: int) -> Interval | None:
        """The share of the way from its own first attempts to the best possible with k that an arm goes with k attempts: (accuracy@k - accuracy@1) /
        (best possible@k - accuracy@1). None where that is not known, or no way is clearly left.

        The best possible is that of all problems, whichever a resample draws: where it is below 1 the interval is wider than it need be."""
        names = self._names(place)
        best = [self.ceilings(name).get(BEST, {}).get(k) for name in names]
        if not arm.has_values or None in best or not {1, k} <= set(shared_ks([(arm, ACCURACY)], names)) or not (sides := _aligned([(arm, ACCURACY)], names, [1, k])):
            return None
        # columns: first attempts and the best possible, then first attempts and k of them
        ways = [np.stack([x[:, :, 0], np.full(x.shape[:2], top.mean), x[:, :, 0], x[:, :, 1]], axis=2) for x, top in zip(sides[0], best, strict=True) if top]
        closed = share_kept(ways, weighting=OVER_ALL.get(place, "questions"))
        # What so few problems leave unseen is no more than is possible (by chance a policy can solve more than the best one does on average).
        return replace(closed, high=min(closed.high, 1.0)) if closed and closed.mean <= 1 else closed

    def versus(self, a: Arm, of_a: Measure, b: Arm, of_b: Measure, place: str) -> ByK:
        """a's measure minus b's, paired over the problems that both saw; empty without values per problem, or such a problem."""
        names = self._names(place)
        if not (a.has_values and b.has_values) or any(name not in arm.problem_sets for arm in (a, b) for name in names):
            return {}
        if a is b:
            return self.values(a, GAIN, place) if (of_a, of_b) == (ACCURACY, PASS) else {}
        try:
            rows = difference_rows((a, of_a), (b, of_b), names, "", bounds=_BOUNDS[GAIN] if of_a != TOKENS else None, only=place)
        except NothingShared:
            return {}
        return dict(rows[0].by_k) if rows else {}

    def rivals(self, arm: Arm, place: str) -> dict[str, ByK]:
        """label -> accuracy of `arm` minus the rival's pass@k: the other arms, rivals that the evaluations themselves were given (of several
        seeds: the mean, in the hull of their intervals), and the best independent sampling, of all or blind to the question, where it can be computed."""
        found = {other.label: by_k for other in self.arms if not same_samples(arm, other) and (by_k := self.versus(arm, ACCURACY, other, PASS, place))}
        if place not in OVER_ALL and place in arm.problem_sets:
            for label, figures in given_rivals(arm, place).items():
                found.setdefault(label, hulls([intervals(one.get("gain")) for one in figures]))
        accuracy, known = self.values(arm, ACCURACY, place), self.ceilings(place)
        for ceiling, label in SAMPLERS.items():
            best = known.get(ceiling, {})
            found[label] = {k: a.above(best[k].mean) for k, a in accuracy.items() if k in best}
        return {label: by_k for label, by_k in found.items() if by_k}

    def by_seed(self, arm: Arm, rival: str | None, place: str, k: int) -> list[float]:
        """accuracy@k - pass@k of each of the arm's seeds, on the problems that all of them share: its own, or the rival's (of the same seed, where it is an
        arm). Empty unless it is known of all."""
        names, weighting = self._names(place), OVER_ALL.get(place, "questions")
        known = next((self.ceilings(place).get(ceiling, {}).get(k) for ceiling, label in SAMPLERS.items() if label == rival), None)
        other = arm if rival is None else next((one for one in self.arms if one.label == rival), None)
        if (known or other) is None or not arm.has_values or any(name not in arm.problem_sets for name in names):
            return []
        sides = [(arm, ACCURACY)] if known else [(arm, ACCURACY), (other, PASS)] if other else []
        pairs = seed_pairs(arm, other) if other and other is not arm else [(i, i) for i in range(len(arm.members))]
        if len(pairs) < len(arm.members) or any(not one.has_values or any(name not in one.problem_sets for name in names) for one, _ in sides):
            return []
        if k not in shared_ks(sides, names) or not (cells := _aligned(sides, names, [k])):
            return []
        mine_S = seed_means(cells[0], weighting=weighting)[:, 0]
        theirs_S = known.mean if known else seed_means(cells[1], weighting=weighting)[[j for _, j in pairs], 0]
        return (mine_S - theirs_S).tolist()

    def ceilings(self, place: str) -> dict[str, ByK]:
        """Values known by computation, of the task itself and of the feedback that the head arm was given (else of the first arm's for which they are known);
        over all sets, where they are known of each."""
        if place in OVER_ALL:
            tables = [self.ceilings(name) for name in self.over_all]
            sizes = [self._problems(name) if place == ALL_QUESTIONS else 1 for name in self.over_all]
            shared = {name: set.intersection(*(set(t.get(name, {})) for t in tables)) for name in tables[0]}
            return {
                name: {k: Interval.exact(sum(n * t[name][k].mean for n, t in zip(sizes, tables, strict=True)) / sum(sizes)) for k in sorted(ks)}
                for name, ks in shared.items()
                if ks
            }
        for arm in (self.head, *self.arms):
            for member in arm.members:
                tables_of = member.problem_sets.get(place, {}).get("ceilings") or {}
                if any(tables_of.values()):
                    return {name: {int(k): Interval.exact(v) for k, v in by_k.items() if v is not None} for name, by_k in tables_of.items() if by_k}
        return {}

    def _problems(self, name: str) -> int:
        return next(int(figures.get("problems") or 1) for arm in self.arms for m in arm.members if (figures := m.problem_sets.get(name)))

    def table(self, arm: Arm, place: str, key: str) -> list[Mapping[str, Any]]:
        """A part of eval.json, for each seed that has it."""
        return [part for m in arm.members if (part := m.problem_sets.get(place, {}).get(key))]

    # ------------------------------------------------------------------------------------------------ attempt by attempt

    @cached_property
    def attempt_intervals(self) -> bool:
        """Whether the rates of all arms of several seeds have 95 % intervals over seeds x problems. Evaluations of earlier versions kept no counts for
        each problem: of several such seeds there are the lowest and the highest."""
        counts = [quantity for pair in RATES.values() for quantity in pair]
        several = [arm for arm in self.evaluated if len(arm.members) > 1]
        return all(arm.has_values and all(arm.ks(name, quantity) for name in arm.problem_sets for quantity in (*counts, "attempts_used")) for arm in several)

    def not_held_out(self, arm: Arm, place: str) -> list[str]:
        """A sentence for each problem set of which evaluations say that problems of it were trained on as well: those of the arm, and of others that were
        trained on the same source (evaluations of earlier versions do not say it)."""
        sources = {m.run.recipe.problems.train for m in arm.members if m.run}
        members = [m for other in self.evaluated for m in other.members if other is arm or (m.run and m.run.recipe.problems.train in sources)]
        said = [[text for m in members for text in m.problem_sets.get(name, {}).get("warnings") or ()] for name in self._names(place)]
        return [f"{text}." for texts in said if (text := trained_on(texts))]

    def attempts_budgets(self, arm: Arm, place: str) -> list[int]:
        """The budgets of the dialogues that the rates by attempt and the false "wrong" are of, in rising order: several only where seeds or sets differ.
        Evaluations of earlier versions do not name it: there it is the largest."""
        figures = [m.problem_sets.get(name, {}) for m in arm.members for name in self._names(place)]
        return sorted({int(one.get("attempts_budget") or max(map(int, one.get("attempts_used") or one.get("accuracy") or {}), default=1)) for one in figures})

    def _budgets_differ(self, arm: Arm, place: str) -> bool:
        """Whether seeds were evaluated on one set with different such budgets: a model may do something else with each, so that their mean is no rate of it."""
        return any(len(self.attempts_budgets(arm, name)) > 1 for name in self._names(place))

    def rates(self, arm: Arm, place: str, name: str) -> ByK:
        """A rate of `RATES` by number of the attempt, from the dialogues with the budget of `attempts_budgets`; an attempt that none made has none, nor have
        seeds whose budgets differ."""
        if self._budgets_differ(arm, place):
            return {}
        if len(arm.members) > 1 and self.attempt_intervals:
            top, bottom = (((quantity, 1.0),) for quantity in RATES[name])
            return self._ratios(arm, top, bottom, place, (0.0, 1.0))
        found = [t if name == "conditional_success" else t.get("by_attempt") or {} for t in self.table(arm, place, name)]
        if len(found) != len(arm.members):
            return {}
        # A later attempt that a seed never reached has no rate there: the others speak for it.
        numbers = sorted({int(t) for table in found for t in table})
        return {t: rate for t in numbers if (rate := over_tables([table.get(str(t)) for table in found]))}

    def repeats_within(self, arm: Arm, place: str) -> ByK:
        """By budget k the share of later answers that repeat an earlier wrong one; empty for evaluations of earlier versions, which did not count them."""
        names = self._names(place)
        if len(arm.members) == len(names) == 1 and names[0] in arm.problem_sets:
            return intervals((arm.members[0].problem_sets[names[0]].get("repeat_rate") or {}).get("by_budget"))
        return self._ratios(arm, ((REPEATED, 1.0),), ((ANSWERED_AGAIN, 1.0),), place, (0.0, 1.0)) if arm.has_values else {}

    def overall_rate(self, arm: Arm, place: str, name: str) -> Interval | None:
        """A rate of `RATES` over all attempts; over all sets the mean of theirs, where all of them have one. None where the budgets of seeds differ."""
        if self._budgets_differ(arm, place):
            return None
        if len(arm.members) > 1 and self.attempt_intervals and all(one in arm.problem_sets for one in self._names(place)):
            # Set by set: each may have a budget of its own.
            top, bottom = (((quantity, 1.0),) for quantity in RATES[name])
            found = [_aligned([(arm, top), (arm, bottom)], [one], shared_ks([(arm, top), (arm, bottom)], [one])) for one in self._names(place)]
            if not all(found):
                return None
            tops, bottoms = ([x.sum(axis=2, keepdims=True) for sides in found if sides for x in sides[i]] for i in (0, 1))
            return ratios(tops, bottoms, weighting=OVER_ALL.get(place, "questions"))[0]
        of_sets = [over_tables([t.get("overall") for t in self.table(arm, set_, name)]) for set_ in self._names(place)]
        known = [one for one in of_sets if one]
        if len(known) < len(of_sets) or not known:
            return None
        return known[0] if len(known) == 1 else without_bounds(known)

    def false_wrong(self, arm: Arm, place: str, name: str) -> Interval | None:
        """A rate of `FALSE_WRONG_COUNTS` on one problem set: over seeds x problems, else (evaluations of earlier versions) with the lowest and the
        highest seed; None where not every seed was asked, or not with the same budget, or none gave a right answer."""
        found = self.table(arm, place, "false_wrong")
        if len(found) != len(arm.members) or self._budgets_differ(arm, place):
            return None
        if len(found) > 1 and self.false_wrong_intervals:
            top, bottom = (((quantity, 1.0),) for quantity in FALSE_WRONG_COUNTS[name])
            return next(iter(self._ratios(arm, top, bottom, place, (0.0, 1.0)).values()), None)
        return over_tables([table[name] for table in found])

    @cached_property
    def false_wrong_intervals(self) -> bool:
        """Whether every arm of several seeds that was told a false "wrong" kept the problems' own counts of it."""
        quantities = [quantity for pair in FALSE_WRONG_COUNTS.values() for quantity in pair]
        asked = [(arm, name) for arm, name in self._several_with("false_wrong") if not self._budgets_differ(arm, name)]
        return all(arm.has_values and all(arm.ks(name, quantity) for quantity in quantities) for arm, name in asked)

    @cached_property
    def token_intervals(self) -> bool:
        """Whether every arm of several seeds with a comparison at equal tokens kept the counts of its samples, problem by problem."""
        return all(_tallied(arm, name) for arm, name in self._several_with("equal_tokens"))

    def _several_with(self, key: str) -> list[tuple[Arm, str]]:
        """Arms of several seeds, and the problem sets on which each seed has this part of eval.json."""
        return [(arm, name) for arm in self.evaluated for name in arm.problem_sets if len(self.table(arm, name, key)) == len(arm.members) > 1]

    def equal_tokens(self, arm: Arm, place: str) -> dict[int, EqualTokens]:
        """k -> the dialogues of an arm on one problem set against its own samples that may spend as much. Of one seed what its evaluation found; of
        several over seeds x problems, else (evaluations of earlier versions) with the lowest and the highest seed."""
        found = self.table(arm, place, "equal_tokens")
        if not found or len(found) != len(arm.members):
            return {}
        if len(found) > 1 and self.token_intervals:
            return {k: equal for k, equal in self._equal_tokens(arm, place, arm).items() if equal}
        joined = {}
        for k in sorted(set.intersection(*({int(k) for k in t} for t in found))):
            tables = [t[str(k)] for t in found]
            tokens, samples = (sum(t[key] for t in tables) / len(tables) for key in ("tokens", "samples"))
            passed, gain = (over_tables([t[key] for t in tables]) for key in ("pass", "gain"))
            if passed and gain:
                joined[k] = EqualTokens(tokens, samples, passed, gain)
        return joined

    def equal_tokens_of_rivals(self, arm: Arm, place: str) -> dict[str, dict[int, EqualTokens | None]]:
        """label -> k -> the dialogues of an arm on one problem set against the samples of another model that may spend as much; over seeds x problems.
        None where all that was sampled of it costs less. Without arms whose counts of samples are not known, or that have no samples."""
        found = {other.label: self._equal_tokens(arm, place, other) for other in self.arms if not same_samples(arm, other)}
        return {label: by_k for label, by_k in found.items() if by_k}

    def _equal_tokens(self, arm: Arm, place: str, other: Arm) -> dict[int, EqualTokens | None]:
        if not arm.has_values or any(place not in one.problem_sets for one in (arm, other)) or not (temperatures := _tallied(other, place)):
            return {}
        ks, problems = shared_ks([(arm, ACCURACY), (arm, TOKENS)], [place]), shared_problems([arm, other], place)
        if not ks or not problems:
            return {}
        solved_SKP, tokens_SKP = (arm.cells(place, quantity, ks, problems).transpose(0, 2, 1) for quantity in ("solved", "tokens"))
        tallies = [
            {t: Tally.read(*(seed.cells(place, f"{part}@{key_of(t)}", [1], problems)[0, :, 0] for part in TALLIED)) for t in known}
            for seed, known in zip(other.seeds(), temperatures, strict=True)
        ]
        folds_P = np.array([fold_of(problem) for problem, _ in problems], dtype=np.int64)
        return dict(zip(ks, equal_tokens_of_seeds(solved_SKP, tokens_SKP, tallies, folds_P, paired=other is arm), strict=True))

    def attempts_used(self, arm: Arm, place: str) -> ByK:
        if place not in arm.problem_sets:
            return {}
        if len(arm.members) > 1 and self.attempt_intervals:
            return self._means(arm, _USED, shared_ks([(arm, _USED)], [place]), place, None)
        used = [intervals(t) for t in self.table(arm, place, "attempts_used")]
        ks = sorted(set.intersection(*(set(t) for t in used))) if used else []
        return {k: found for k in ks if (found := over_seeds([t[k] for t in used]))}

    def tokens_per_solved(self, arm: Arm, place: str) -> ByK:
        """Tokens of all problems for each that was solved, by k, on the problems that were graded with k attempts; a k with which none was solved has
        none, nor has an evaluation without values per problem."""
        if not arm.has_values or place not in arm.problem_sets:
            return {}
        ks = shared_ks([(arm, TOKENS), (arm, ACCURACY)], [place])
        return {k: found for k in ks if (found := self._ratios(arm, TOKENS, ACCURACY, place, None, [k]).get(k))}

    def _ratios(self, arm: Arm, top: Measure, bottom: Measure, place: str, bounds: tuple[float, float] | None, ks: list[int] | None = None) -> ByK:
        names = self._names(place)
        if any(name not in arm.problem_sets for name in names) or not (ks := ks or shared_ks([(arm, top), (arm, bottom)], names)):
            return {}
        if not (sides := _aligned([(arm, top), (arm, bottom)], names, ks)):
            return {}
        found = ratios(*sides, weighting=OVER_ALL.get(place, "questions"), bounds=bounds)
        return {k: one for k, one in zip(ks, found, strict=True) if one}

    def best_temperatures(self, arm: Arm, k: int) -> list[tuple[float, bool]]:
        """Of each seed and set at which temperature pass@k was highest (of several as high, the one nearest 1), and whether that is an end of those
        sampled and none is as high. Evaluations at a single temperature take no part."""
        found = []
        for figures in (m.problem_sets[name] for m in arm.members for name in arm.problem_sets):
            at = {float(heat): by_k[str(k)]["mean"] for heat, by_k in (figures.get("pass_temperatures") or {}).items() if str(k) in by_k}
            if len(at) > 1:
                highest = [heat for heat in at if at[heat] == max(at.values())]
                best = min(highest, key=lambda heat: abs(heat - 1))
                found.append((best, best in (min(at), max(at)) and len(highest) == 1))
        return found

    # -------------------------------------------------------------------------------------------------------- controls

    def controls(self, arm: Arm, place: str) -> list[str]:
        """The controls that every seed was played under."""
        if place in OVER_ALL:
            found = [self.controls(arm, name) for name in self.over_all]
            return [name for name in found[0] if all(name in other for other in found)]
        tables = [m.problem_sets.get(place, {}).get("controls") or {} for m in arm.members]
        return [name for name in tables[0] if all(name in other for other in tables)]

    def control_accuracy(self, arm: Arm, place: str, control: str) -> ByK:
        if len(arm.members) == 1 and place not in OVER_ALL:
            return intervals(self.table(arm, place, "controls")[0][control].get("accuracy"))
        return self._control(arm, place, control)

    def control_difference(self, arm: Arm, place: str, control: str) -> ByK:
        """control - normal, paired over problems."""
        if len(arm.members) == 1 and place not in OVER_ALL:
            return intervals(self.table(arm, place, "controls")[0][control].get("difference"))
        return self._control(arm, place, control, minus=ACCURACY)

    def control_gain(self, arm: Arm, place: str, control: str) -> ByK:
        """control - the arm's own pass@k, paired over problems: what is left of the gain over drawing again. Empty without samples, or values per problem."""
        return self._control(arm, place, control, minus=PASS)

    def kept(self, arm: Arm, place: str, control: str, k: int, start: int = 1) -> Interval | None:
        """The share of the rise from `start` to k attempts that is left under the control; None where there is no clear rise."""
        if len(arm.members) == 1 and place not in OVER_ALL and arm.members[0].problem_sets[place].get("rise") == [start, k]:
            kept = self.table(arm, place, "controls")[0][control].get("gain_kept")
            return Interval.from_json(kept) if kept and kept.get("mean") is not None else None
        names = self._names(place)
        under: Measure = ((f"solved:{control}", 1.0),)
        if not arm.has_values or not {start, k} <= set(shared_ks([(arm, ACCURACY), (arm, under)], names)):
            return None
        if not (sides := _aligned([(arm, ACCURACY), (arm, under)], names, [start, k])):
            return None
        return share_kept([np.concatenate(pair, axis=2) for pair in zip(*sides, strict=True)], weighting=OVER_ALL.get(place, "questions"))

    def _control(self, arm: Arm, place: str, control: str, *, minus: Measure = ()) -> ByK:
        names = self._names(place)
        measure: Measure = ((f"solved:{control}", 1.0), *((quantity, -sign) for quantity, sign in minus))
        if not arm.has_values or not (ks := shared_ks([(arm, measure)], names)):
            return {}
        return self._means(arm, measure, ks, place, (-1.0, 1.0) if minus else (0.0, 1.0))

    def _means(self, arm: Arm, measure: Measure, ks: list[int], place: str, bounds: tuple[float, float] | None) -> ByK:
        names = self._names(place)
        # Of few samples that could be graded pass@k is known up to some k only: such a problem is left out there alone, as in eval.json.
        some = measure in (PASS, GAIN) and not all(np.isfinite(arm.cells(name, quantity, ks, arm.problems(name))).all() for name in names for quantity, _ in measure)
        batches = [[k] for k in ks] if some else [ks]
        found: ByK = {}
        for batch in batches:
            if sides := _aligned([(arm, measure)], names, batch):
                found |= zip(batch, means(sides[0], weighting=OVER_ALL.get(place, "questions"), bounds=bounds), strict=True)
        return found


def _tallied(arm: Arm, place: str) -> list[list[float]]:
    """Of each seed the temperatures at which its samples are known as counts; empty unless every seed has one."""
    if not arm.has_values or place not in arm.problem_sets:
        return []
    found = [[float(t) for t in one.members[0].problem_sets[place].get("pass_temperatures") or {} if all(one.ks(place, f"{part}@{t}") for part in TALLIED)] for one in arm.seeds()]
    return found if all(found) else []


def whose_list(place: str) -> str:
    """What a fixed list of answers is one for: over several sets, and in a mixture, each has its own, since the question says which it is from."""
    return " for each set" if place in OVER_ALL else " for each part of the mixture" if " + " in place else ""


def _aligned(sides: Sequence[tuple[Arm, Measure]], names: Sequence[str], ks: Sequence[int]) -> list[list[Floats]] | None:
    """`comparison.aligned`; None where no problem is left: such a figure is empty, which the report's warnings say why."""
    try:
        return aligned(sides, names, ks)
    except NothingShared:
        return None


def strongest(rivals: Mapping[str, Interval]) -> str | None:
    """The label of the rival over whose pass@k least is gained; None without rivals."""
    return min(rivals, key=lambda label: rivals[label].mean, default=None)
