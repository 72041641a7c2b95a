"""Arms against each other, on the problems that they share: which differences there are, and what a reader has to be warned of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mulligan.errors import ConfigError
from mulligan.evaluation.arms import Arm, Key
from mulligan.evaluation.compare import MIN_SEEDS, Floats, Weighting, differences, means
from mulligan.evaluation.faults import COUNTED, FEW, SMALL_SET, few, listed
from mulligan.evaluation.intervals import Interval
from mulligan.evaluation.power import Power, power_of
from mulligan.evaluation.results import unlike_settings
from mulligan.evaluation.values import begun_evaluation

Measure = tuple[tuple[str, float], ...]
"""A sum over quantities of values.parquet, each with its sign."""

ACCURACY: Measure = (("solved", 1.0),)
PASS: Measure = (("passed", 1.0),)
GAIN: Measure = (("solved", 1.0), ("passed", -1.0))
TOKENS: Measure = (("tokens", 1.0),)

MEAN_OF_SETS, ALL_QUESTIONS = "mean of sets", "all questions"
OVER_ALL: dict[str, Weighting] = {MEAN_OF_SETS: "sets", ALL_QUESTIONS: "questions"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a comparison: on one problem set, or over all of them. Without a `baseline` it is the arm's own value."""

    quantity: str
    arm: str
    baseline: str | None
    problems: str
    by_k: Mapping[int, Interval]

    def to_json(self) -> dict[str, Any]:
        table = {"quantity": self.quantity, "arm": self.arm, "baseline": self.baseline, "problems": self.problems}
        return table | {"by_k": {str(k): interval.to_json() for k, interval in self.by_k.items()}}


@dataclass(frozen=True, slots=True)
class PairPower:
    """What a problem set can show of an arm's accuracy against the baseline's with k attempts, by the spread of one seed's differences."""

    arm: str
    problems: str
    k: int
    n: int
    power: Power

    def to_json(self) -> dict[str, Any]:
        return {"arm": self.arm, "problems": self.problems, "k": self.k, "n": self.n} | self.power.to_json()


@dataclass(frozen=True, slots=True)
class Comparison:
    baseline: str
    arms: Mapping[str, int]
    """Label -> number of seeds."""
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    by_seed: tuple[str, ...] = ()
    """Arms that have the baseline's seeds, and are paired with it seed by seed (see `shared_seeds`)."""
    power: tuple[PairPower, ...] = ()

    def to_json(self) -> dict[str, Any]:
        rows, power = [row.to_json() for row in self.rows], [one.to_json() for one in self.power]
        return {"baseline": self.baseline, "arms": dict(self.arms), "by_seed": list(self.by_seed), "rows": rows, "power": power, "warnings": list(self.warnings)}


def compare(arms: Sequence[Arm], baseline: Arm) -> Comparison:
    """Each arm's accuracy, pass@k and gain, and each arm against the baseline: accuracy, gain, accuracy against the baseline's pass@k, tokens.

    Raises:
        ConfigError: fewer than two arms, or no problem that all arms saw.
        RunError: an evaluation without values per problem.
    """
    if len(arms) < 2:
        raise ConfigError(f"{arms[0].label} is the only arm ({len(arms[0].members)} seed{'s' * (len(arms[0].members) > 1)} of one recipe): give a second one to compare it with")
    sets = shared_sets(arms)
    if not sets:
        each = [set(member.problem_sets) for arm in arms for member in arm.members]
        if common := sorted(set.intersection(*each)):
            raise ConfigError(f"{', '.join(common)}: the arms share no problem of it: evaluate all on the same source with one limit, and give a generated source a seed of its own (gym: seed=1)")
        raise ConfigError("no problem set was evaluated in all arms: evaluate all on the same sources (mulligan eval --problems)")
    graded, sampled = graded_problems(arms, sets), graded_problems(arms, sets, ("solved", "passed"))
    rows: list[Row] = []
    for arm in arms:
        rows += value_rows(arm, sets, "accuracy", ACCURACY, bounds=(0.0, 1.0), among=graded)
    for arm in arms:
        rows += value_rows(arm, sets, "pass@k", PASS, bounds=(0.0, 1.0), among=sampled)
    for arm in arms:
        rows += value_rows(arm, sets, "gain", GAIN, bounds=(-1.0, 1.0), among=sampled)
    wanted = [
        ("accuracy", ACCURACY, ACCURACY, (-1.0, 1.0), graded),
        ("gain", GAIN, GAIN, (-2.0, 2.0), sampled),
        ("accuracy - baseline's pass@k", ACCURACY, PASS, (-1.0, 1.0), sampled),
        ("tokens", TOKENS, TOKENS, None, graded),
    ]
    for quantity, of_arm, of_baseline, bounds, among in wanted:
        for arm in arms:
            if arm is not baseline:
                rows += difference_rows((arm, of_arm), (baseline, of_baseline), sets, quantity, bounds=bounds, among=among)
    if not any(row.baseline and row.quantity == "accuracy" for row in rows):
        raise ConfigError("no problem was graded in every arm with the same number of attempts: check the grader (its deadline) and --attempts, and evaluate again")
    by_seed = tuple(arm.label for arm in arms if arm is not baseline and shared_seeds(arm, baseline) is not None)
    power = pair_powers([arm for arm in arms if arm is not baseline], baseline, graded)
    # `power` says what the sets can show of this comparison, which the evaluations say of their own rise.
    counted = {one.problems for one in power} | {name for name in sets if len(graded[name]) < SMALL_SET}
    warnings = [*comparison_warnings(arms), *_attempts_warnings(arms, sets), *_grading_warnings(arms, sets), *evaluation_warnings(arms, sets, counted)]
    return Comparison(baseline.label, {arm.label: len(arm.members) for arm in arms}, tuple(rows), tuple(warnings), by_seed, power)


def pair_powers(arms: Sequence[Arm], baseline: Arm, among: Mapping[str, Sequence[Key]]) -> tuple[PairPower, ...]:
    """For each set and arm: of accuracy - the baseline's at the largest k that all were evaluated with, for the first seed that both have."""
    found = []
    for name, problems in among.items():
        if not (ks := shared_ks([(arm, ACCURACY) for arm in (*arms, baseline)], [name])):
            continue
        for arm in arms:
            i, j = next(iter(seed_pairs(arm, baseline)), (0, 0))
            a_P, b_P = (one.cells(name, "solved", [ks[-1]], problems)[seed, :, 0] for one, seed in ((arm, i), (baseline, j)))
            if power := power_of(a_P, b_P):
                found.append(PairPower(arm.label, name, ks[-1], len(problems), power))
    return tuple(found)


def value_rows(
    arm: Arm, sets: Sequence[str], quantity: str, measure: Measure, *, bounds: tuple[float, float] | None, among: Mapping[str, Sequence[Key]] | None = None
) -> list[Row]:
    """An arm's own values: a row for each set that has the quantity, and over all if there are several."""
    rows = []
    for where, names, weighting in _places(sets):
        ks = shared_ks([(arm, measure)], names)
        if not ks:
            continue
        with suppress(NothingShared):  # no problem of it was graded: no figure of it
            (cells,) = aligned([(arm, measure)], names, ks, among)
            rows.append(Row(quantity, arm.label, None, where, dict(zip(ks, means(cells, weighting=weighting, bounds=bounds), strict=True))))
    return rows


def difference_rows(
    of: tuple[Arm, Measure],
    to: tuple[Arm, Measure],
    sets: Sequence[str],
    quantity: str,
    *,
    bounds: tuple[float, float] | None,
    among: Mapping[str, Sequence[Key]] | None = None,
    only: str | None = None,
) -> list[Row]:
    """One arm minus another, paired over problems, and over seeds where they are shared: a row for each set for which both have their quantities,
    and over all if there are several; or that of `only` one place."""
    rows = []
    for where, names, weighting in _places(sets):
        ks = shared_ks([of, to], names) if only in (None, where) else []
        if not ks:
            continue
        with suppress(NothingShared):
            a, b = aligned([of, to], names, ks, among)
            order = shared_seeds(of[0], to[0])
            found = differences(a, b if order is None else [x[order] for x in b], weighting=weighting, bounds=bounds, joint_seeds=order is not None)
            rows.append(Row(quantity, of[0].label, to[0].label, where, dict(zip(ks, found, strict=True))))
    return rows


def _places(sets: Sequence[str]) -> list[tuple[str, Sequence[str], Weighting]]:
    alike: Weighting = "questions"
    places: list[tuple[str, Sequence[str], Weighting]] = [(name, [name], alike) for name in sets]
    if len(sets) > 1:
        places.extend((where, sets, weighting) for where, weighting in OVER_ALL.items())
    return places


# ----------------------------------------------------------------------------------------------------------- shared ground


class NothingShared(ConfigError):
    """No problem is left that all sides of a figure were graded on."""


def shared_sets(arms: Sequence[Arm]) -> list[str]:
    """The problem sets that all arms were evaluated on and share a problem of."""
    return [name for name in arms[0].problem_sets if all(name in arm.problem_sets for arm in arms) and shared_problems(arms, name)]


def shared_problems(arms: Sequence[Arm], problem_set: str) -> list[Key]:
    found = [arm.problems(problem_set) for arm in arms]
    others = [set(keys) for keys in found[1:]]
    return [key for key in found[0] if all(key in other for other in others)]


def graded_problems(arms: Sequence[Arm], sets: Sequence[str], quantities: Sequence[str] = ("solved",)) -> dict[str, list[Key]]:
    """Of each set the problems that all arms saw and of which all of them have these quantities, at every k that they were evaluated with: what one arm
    could not grade counts for none, or its column would stand on easier problems than the next one's. An arm that has none at all takes none away."""
    found = {}
    for name in sets:
        problems = shared_problems(arms, name)
        known = [mask_P for arm in arms for quantity in quantities if (mask_P := _known(arm, name, quantity, problems)).any()]
        found[name] = [key for key, all_know in zip(problems, np.logical_and.reduce(known), strict=True) if all_know] if known else []
    return found


def _known(arm: Arm, problem_set: str, quantity: str, problems: Sequence[Key]) -> NDArray[np.bool_]:
    """`_P`: whether the arm has the quantity of the problem, of every seed and at every k; False throughout where it was not measured."""
    ks = arm.ks(problem_set, quantity)
    return np.asarray(np.isfinite(arm.cells(problem_set, quantity, ks, problems)).all(axis=(0, 2))) if ks else np.zeros(len(problems), dtype=bool)


def shared_seeds(a: Arm, b: Arm) -> list[int] | None:
    """For each seed of `a` its place in `b`, where the two are paired by them: both were trained with the same seeds, and at least `MIN_SEEDS`.

    Runs of one seed and recipe share a warm-up and the order of the problems, so that what a seed does to both drops out; where they share nothing, the
    pairs are as good as any others. Of fewer seeds too few differences are left to show how they vary (docs/intervals.md): there each arm's seeds are drawn by themselves.
    """
    pairs = seed_pairs(a, b)
    return [j for _, j in pairs] if MIN_SEEDS <= len(pairs) == len(a.members) == len(b.members) else None


def seed_pairs(a: Arm, b: Arm) -> list[tuple[int, int]]:
    """The places of the seeds that both arms have; of two arms of one seed each, those, whatever they are. Empty where an arm has one seed several times."""
    ours, theirs = ([member.seed for member in arm.members] for arm in (a, b))
    if len(ours) == len(theirs) == 1:
        return [(0, 0)]
    if None in (*ours, *theirs) or len({*ours}) < len(ours) or len({*theirs}) < len(theirs):
        return []
    return [(i, theirs.index(seed)) for i, seed in enumerate(ours) if seed in theirs]


def shared_ks(sides: Sequence[tuple[Arm, Measure]], sets: Sequence[str]) -> list[int]:
    """The numbers k for which every side has all its quantities on every set."""
    found = [set(arm.ks(name, quantity)) for arm, measure in sides for quantity, _ in measure for name in sets]
    return sorted(set.intersection(*found))


def aligned(
    sides: Sequence[tuple[Arm, Measure]], sets: Sequence[str], ks: Sequence[int], among: Mapping[str, Sequence[Key]] | None = None
) -> list[list[Floats]]:
    """Each side's measure on each set, `_SPC` with ks as columns, on the problems that all sides share (`among`: on these, by set).

    A problem that could not be graded in any one dialogue behind these figures takes no part, so that what is compared is compared on the
    same problems throughout.

    Raises:
        NothingShared: a set on which no problem is left.
    """
    result: list[list[Floats]] = [[] for _ in sides]
    arms = list({id(arm): arm for arm, _ in sides}.values())
    for name in sets:
        problems = shared_problems(arms, name) if among is None else among[name]
        cells = [sum(sign * arm.cells(name, quantity, ks, problems) for quantity, sign in measure) for arm, measure in sides]
        known_P = np.logical_and.reduce([np.isfinite(x).all(axis=(0, 2)) for x in cells])
        if not len(known_P):
            raise NothingShared(f"{name}: no problem of it was seen by all arms and seeds: evaluate on the same source, limit and seed")
        if not known_P.any():
            raise NothingShared(f"{name}: no problem was graded in every arm: check the grader (its deadline), and evaluate again")
        for x, results in zip(cells, result, strict=True):
            results.append(np.asarray(x)[:, known_P, :])
    return result


# --------------------------------------------------------------------------------------------------------------- warnings


def comparison_warnings(arms: Sequence[Arm]) -> list[str]:
    """What makes a comparison of these arms weaker than it looks, one sentence each."""
    found = [*_training_warnings(arms), *_protocol_warnings(arms)]
    if few := [f"{arm.label} ({len(arm.members)})" for arm in arms if len(arm.members) < MIN_SEEDS]:
        found.append(
            f"fewer than {MIN_SEEDS} seeds: {', '.join(few)}; so few say little of another training run, and one says nothing of it"
        )
    return [*found, *_unfinished_warnings(arms), *_set_warnings(arms)]


def _unfinished_warnings(arms: Sequence[Arm]) -> list[str]:
    """Runs whose figures are those that training left, although another evaluation was begun."""
    runs = [m.folder for arm in arms for m in arm.members if m.run is not None and m.folder == m.run.path]
    return [f"{begun}: this evaluation was not finished, and what stands here is the one at the end of training: the same command goes on with it" for run in runs if (begun := begun_evaluation(run))]


def _set_warnings(arms: Sequence[Arm]) -> list[str]:
    found = []
    for name in dict.fromkeys(name for arm in arms for m in arm.members for name in m.problem_sets):
        without = [arm.label for arm in arms if any(name not in m.problem_sets for m in arm.members)]
        if without:
            found.append(f"{name} is left out: {', '.join(without)} was not evaluated on it")
            continue
        for arm in arms:
            each, joint = arm.problem_counts(name), len(arm.problems(name))
            if max(each) > joint:
                found.append(
                    f"{name}: the seeds of {arm.label} were evaluated on different problems ({', '.join(f'{n:,}' for n in each)}; {joint:,} in all of them), and only those "
                    "count: evaluate all with one limit, and give a generated source a seed of its own (gym: seed=1), so that no run's seed chooses its problems"
                )
        sizes = {arm.label: len(arm.problems(name)) for arm in arms}
        shared = len(shared_problems(arms, name))
        if not shared:
            found.append(f"{name} is left out: no problem of it was seen by all arms")
        elif any(size != shared for size in sizes.values()):
            listed = ", ".join(f"{label} {size:,}" for label, size in sizes.items())
            found.append(f"{name}: the arms saw different problems ({listed}; {shared:,} in common): mulligan compare is on these alone, a report's differences on those that both arms saw")
        if 0 < shared < SMALL_SET:
            found.append(f"{name}: {few(shared)}, and only large differences can be seen on {'it' if shared == 1 else 'them'}; use {SMALL_SET} or more")
    return found


def evaluation_warnings(arms: Sequence[Arm], sets: Collection[str], counted: Collection[str]) -> list[str]:
    """What the evaluations themselves warned of on these sets, each once with the arms that it is said of: numbers that differ between them as `3 to 7`.
    `counted`: sets of which it is said otherwise that they are small (each evaluation has its own figures for it)."""
    labels: dict[str, dict[str, None]] = {}
    numbers: dict[str, set[int]] = {}
    for arm in arms:
        for member in arm.members:
            for name in (name for name in member.problem_sets if name in sets):
                for text in member.problem_sets[name].get("warnings") or ():
                    if name in counted and FEW.search(text):
                        continue
                    alike = COUNTED.sub("\0", text)
                    labels.setdefault(alike, {})[arm.label] = None
                    numbers.setdefault(alike, set()).update(int(n.replace(",", "")) for n in COUNTED.findall(text))
    spans = {alike: " to ".join(f"{n:,}" for n in sorted({min(found), max(found)})) if found else "" for alike, found in numbers.items()}
    return [f"{', '.join(labels[alike])}: {alike.replace(chr(0), span)}" for alike, span in spans.items()]


def _attempts_warnings(arms: Sequence[Arm], sets: Sequence[str]) -> list[str]:
    """Numbers of attempts at which an arm is not compared, as not all were evaluated with them."""
    found = []
    for name in sets:
        ks = {arm.label: set(arm.ks(name, "solved")) for arm in arms}
        missing = {label: sorted(set().union(*ks.values()) - known) for label, known in ks.items()}
        if listed := [f"{label} with k = {', '.join(map(str, lost))}" for label, lost in missing.items() if lost]:
            trained = [f"{arm.label} was trained with {arm.trained_attempts}" for arm in arms if any(arm.trained_attempts in lost for lost in missing.values())]
            told = f" ({', '.join(trained)})" if trained else ""
            found.append(f"{name}: not evaluated, and so not compared, was {'; '.join(listed)}{told}: give all the same --attempts")
    return found


def _grading_warnings(arms: Sequence[Arm], sets: Sequence[str]) -> list[str]:
    """Which problems `graded_problems` leaves out, and because of whom."""
    found = []
    for name in sets:
        problems = shared_problems(arms, name)
        for quantity, figures, reason in (("solved", "", "not graded in every dialogue"), ("passed", " of pass@k and gain", "too few graded samples")):
            unknown = {arm.label: int((~_known(arm, name, quantity, problems)).sum()) for arm in arms if arm.ks(name, quantity)}
            if nothing := [label for label, n in unknown.items() if n == len(problems)]:
                found.append(f"{name}: all problems of {', '.join(nothing)} are left out{figures}: {reason}")
            if some := [label for label, n in unknown.items() if 0 < n < len(problems)]:
                left = len(problems) - len(graded_problems(arms, [name], (quantity,))[name])
                found.append(f"{name}: {left:,} of {len(problems):,} problems are left out{figures}: {reason} of {', '.join(some)}")
    return found


def _training_warnings(arms: Sequence[Arm]) -> list[str]:
    """Arms whose members a label joined though they were not trained alike."""
    found = []
    for arm in arms:
        if unlike := arm.trained_unlike:
            keys = ", ".join(unlike[:4]) + (f" and {len(unlike) - 4} more" if len(unlike) > 4 else "")
            told = f"; as its trained budget counts that of {arm.members[0].folder}, {arm.trained_attempts}" if unlike[0] == "attempts" else ""
            found.append(f"{arm.label} joins runs that were not trained alike and are no seeds of one arm ({keys} differ{'s' if len(unlike) == 1 else ''}){told}")
    return found


def _protocol_warnings(arms: Sequence[Arm]) -> list[str]:
    """Settings of the protocol, the grader or the evaluation in which an arm differs from the first."""
    found = []
    first = arms[0]
    for arm in arms[1:]:
        differing = _differing_settings(first, arm)
        if differing:
            found.append(f"{first.label} and {arm.label} were not played alike ({listed(differing)})")
    mixed = [arm.label for arm in arms if len({_played(m.problem_sets) for m in arm.members}) > 1 or any(_differing_settings(arm.seeds()[0], seed) for seed in arm.seeds()[1:])]
    if mixed:
        found.append(f"the seeds of {', '.join(mixed)} were not evaluated alike (protocol, grader, temperatures, samples, numbers of attempts or mode differ)")
    return found


def _differing_settings(a: Arm, b: Arm) -> list[tuple[str, Any, Any]]:
    found = [unlike for unlike in unlike_settings(a.members[0].settings, b.members[0].settings) if unlike[0].startswith(("protocol.", "grader."))]
    for name in a.problem_sets:
        if name in b.problem_sets:
            settings = (m.members[0].problem_sets[name] for m in (a, b))
            x, y = settings
            found += [(key, x.get(key), y.get(key)) for key in ("mode", "temperature", "top_p") if x.get(key) != y.get(key)]
            if x.get("samples") and y.get("samples"):
                drawn = [(s["samples"], *_sampled_at(s)) for s in (x, y)]
                found += [(label, a, b) for label, a, b in zip(("samples", "temperatures of the samples"), *((d[0], list(d[1:])) for d in drawn), strict=True) if a != b]
    return list({key: (key, x, y) for key, x, y in found}.values())


def _played(problem_sets: Mapping[str, Mapping[str, Any]]) -> tuple[Any, ...]:
    keys = ("mode", "temperature", "top_p", "samples")
    return tuple((name, *(s.get(key) for key in keys), *_sampled_at(s), *s.get("accuracy", {})) for name, s in sorted(problem_sets.items()))


def _sampled_at(figures: Mapping[str, Any]) -> list[str]:
    """The temperatures of the samples; evaluations of earlier versions had one."""
    return list(figures.get("pass_temperatures") or ([str(figures["sample_temperature"])] if figures.get("sample_temperature") is not None else []))
