"""The parts of a report that come from evaluations: accuracy, gain, differences, controls, equal tokens, attempts, power."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mulligan.evaluation import Interval
from mulligan.evaluation.arms import Arm
from mulligan.evaluation.attempts import headline_budget
from mulligan.evaluation.comparison import ACCURACY, GAIN, OVER_ALL, PASS, TOKENS, Measure
from mulligan.report.chart import Chart, Curve, Panel
from mulligan.report.evidence import SAMPLERS, Evidence, strongest, whose_list
from mulligan.report.power import power, power_against
from mulligan.report.tables import NOTHING, TextTable, attempts_text, number, per_solved, percent, plain, points, tenths
from mulligan.tasks.builtin.strategies import BEST, LIST

MANY_ARMS = 3
"""With more arms than this, the page shows pass@k of the head arm, the baseline and the strongest rival only, until asked for the others."""

BLACK = 6
"""The number of the colour for what is no model; black is the last colour, and with another marker every seventh number after it."""

CONTROLS = {
    "history_blind": "sees no earlier attempt",
    "verdict_hidden": "not told that it was wrong",
    "random_verdict": "random verdicts",
    "other_history": "sees another problem's attempts",
}
_LIMITS = {
    "history_blind": "A model that sees no earlier attempt and is played greedily can change its answer only with the number of attempts left: that little of the rise is left may say no more than that it repeats itself. Against drawing again at random stands the last column, where samples were drawn.",
    "random_verdict": "Under random verdicts nobody can stop at a right answer, so that drawing again gains nothing either. What is lost shows that true verdicts are needed, not that failures are read.",
}
"""What a control cannot tell."""
_CONTROL_COLOURS = (1, 2, 3, 5)
"""Of the controls in this order; the normal dialogues have 0, and 4 is a blue as well."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page. `missing`: what to run for what is not there."""

    id: str
    title: str
    text: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[TextTable, ...] = ()
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "title": self.title,
            "text": list(self.text),
            "charts": [{**chart.to_json(), "tables": [table_json(t) for t in chart.tables()]} for chart in self.charts],
            "tables": [table_json(t) for t in self.tables],
            "missing": self.missing,
        }


def table_json(table: TextTable) -> dict[str, Any]:
    return {"title": table.title, "headers": table.headers, "rows": table.rows, "notes": table.notes, "labels": table.labels}


def evaluation_sections(evidence: Evidence) -> list[Section]:
    """In the order in which they are read; those for which nothing was measured say what to run, or are left out."""
    if not evidence.evaluated:
        return []
    makers = (accuracy_section, gain_section, difference_section, controls_section, tokens_section, attempts_section, power_section)
    return [replace(section, charts=_with_curves(section.charts)) for make in makers if (section := make(evidence)) is not None]


def _with_curves(charts: Sequence[Chart]) -> tuple[Chart, ...]:
    """Without panels, and charts, for which nothing was measured (of seeds that share no k, say)."""
    kept = [replace(chart, panels=[panel for panel in chart.panels if panel.curves]) for chart in charts]
    return tuple(chart for chart in kept if chart.panels)


# --------------------------------------------------------------------------------------------------------------- accuracy


def accuracy_section(evidence: Evidence) -> Section | None:
    panels = {place: _accuracy_panel(evidence, place) for place in evidence.places}
    first = [panels[p] for p in panels if p in OVER_ALL] or list(panels.values())[:1]
    caption = "Solid: accuracy with k attempts allowed. Dotted: pass@k, k independent samples of the same model. Bars: 95 % intervals."
    charts = [Chart("accuracy", "Accuracy against attempts allowed", first, caption)]
    if rest := [panels[p] for p in evidence.sets if panels[p] not in first]:
        charts.append(Chart("accuracy_by_set", "The same for each problem set", rest))
    modes = {figures.get("mode") for arm in evidence.arms for m in arm.members for figures in m.problem_sets.values()}
    own = "Each number of attempts k is its own evaluation, with that budget."
    one = "One dialogue with the largest budget, counted up to each k (--one-pass): not the same as an evaluation with that budget."
    text = [one if modes == {"one_pass"} else own if "one_pass" not in modes else f"{own} Of some arms: {one[0].lower()}{one[1:]}"]
    reached = _headroom(evidence) + _beside_a_list(evidence)
    return Section("accuracy", "Accuracy against attempts", (*text, *reached), tuple(charts), tuple(_rise_table(evidence)))


def _rise_table(evidence: Evidence) -> list[TextTable]:
    """What further attempts bring, paired within each model and problem; with two attempts it is the paper's own figure."""
    lines = []
    for place in evidence.places:
        for arm in evidence.evaluated:
            if by_k := evidence.rises(arm, place, [k for k in evidence.values(arm, ACCURACY, place) if k > 1]):
                lines.append((place, arm.label, by_k))
    return [by_k_table("accuracy − accuracy with one attempt, in points", ("problems", "arm"), lines, points)] if lines else []


def _accuracy_panel(evidence: Evidence, place: str) -> Panel:
    curves = []
    shown = evidence.arms if len(evidence.arms) <= MANY_ARMS else _compared(evidence, place)
    for arm in evidence.arms:
        colour = evidence.colours[arm.label]
        if accuracy := evidence.values(arm, ACCURACY, place):
            curves.append(Curve(arm.label, accuracy, "arm", colour=colour))
        if passed := evidence.values(arm, PASS, place):
            curves.append(Curve(f"{arm.label}: pass@k", passed, "pass", of=arm.label, colour=colour, hidden=arm not in shown))
    for name, by_k in evidence.ceilings(place).items():
        curves.append(Curve(name, by_k, "bound"))
    return Panel(place, curves, trained=evidence.head.trained_attempts)


def _compared(evidence: Evidence, place: str) -> list[Arm]:
    """The arms whose pass@k speaks of the head arm: its own, the baseline's and the strongest rival's."""
    compared = (evidence.head, evidence.baseline, _strongest_arm(evidence, place))
    return [arm for arm in evidence.arms if arm in compared]


def _strongest_arm(evidence: Evidence, place: str) -> Arm | None:
    """The arm over whose pass@K the head arm gains least."""
    k = evidence.budget(evidence.head, place)
    labels = {arm.label: arm for arm in evidence.arms}
    label = strongest({label: by_k[k] for label, by_k in evidence.rivals(evidence.head, place).items() if k in by_k and label in labels})
    return labels[label] if label is not None else None


def _headroom(evidence: Evidence) -> list[str]:
    """How much of the way to the best possible the head arm goes, where that is known."""
    arm, place = evidence.head, evidence.main
    if place is None:
        return []
    best, accuracy, k = evidence.ceilings(place).get(BEST, {}), evidence.values(arm, ACCURACY, place), evidence.budget(arm, place)
    if k not in best or k not in accuracy:
        return []
    closed = evidence.headroom(arm, place, k) if k > 1 else None
    share = f", {percent(closed)} % of the headroom: of the way there from its own first attempts" if closed else ""
    return [f"With {k} attempts the best possible is {100 * best[k].mean:.1f} % ({place}); {arm.label} reaches {percent(accuracy[k])} %{share}."]


def _beside_a_list(evidence: Evidence) -> list[str]:
    """What naming the commonest answers in turn would solve, beside the head arm, where that is known."""
    arm, place = evidence.head, evidence.main
    if place is None or (k := evidence.budget(arm, place)) not in (accuracy := evidence.values(arm, ACCURACY, place)) or k not in (listed := evidence.ceilings(place).get(LIST, {})):
        return []
    return [
        f"The best fixed list of {k} answers{whose_list(place)}, named in turn whatever the question, would solve {100 * listed[k].mean:.1f} % ({place}); {arm.label} solves "
        f"{percent(accuracy[k])} %. The list is fitted to these problems."
    ]


# ------------------------------------------------------------------------------------------------------------------- gain


def gain_section(evidence: Evidence) -> Section | None:
    title = "What the failed attempts brought: accuracy − pass@k"
    places = evidence.places
    own = {place: {arm.label: by_k for arm in evidence.arms if (by_k := evidence.values(arm, GAIN, place))} for place in places}
    rivals = {place: evidence.rivals(evidence.head, place) for place in places}
    if not any(own.values()) and not any(rivals.values()):
        return Section("gain", title, missing="No independent samples were drawn. To tell learning from drawing again: mulligan eval RUN --samples 28 --out RUN/eval (four times as many as attempts).")
    first = [evidence.main, *places] if evidence.main else places
    at, against = (next((p for p in first if found[p]), None) for found in (own, rivals))
    panels = []
    if at is not None:
        curves = [Curve(label, by_k, colour=evidence.colours[label]) for label, by_k in own[at].items()]
        panels.append(_points_panel(f"{at}: each arm − its own pass@k", curves, evidence))
    if against is not None:
        head = evidence.head.label
        curves = [Curve(f"− pass@k of {head} itself", own[against][head], of=head, colour=evidence.colours[head])] if head in own[against] else []
        colours = _rival_colours(evidence, list(rivals[against]))
        curves += [Curve(f"− pass@k of {label}", by_k, of=label, colour=colours[label]) for label, by_k in rivals[against].items()]
        panels.append(_points_panel(f"{against}: {head} − each rival's pass@k", curves, evidence))
    caption = "Above 0: more than k independent samples give. An interval that includes 0 does not show a difference. Each pass@k is at the temperature chosen for it, on other problems."
    text = (
        "A model that gets k attempts can gain by drawing again, without learning anything from its failures. The gain is what is left after taking that away, paired over problems.",
        "Training sharpens a model and so lowers its own pass@k; the fairer rivals are models that were not sharpened.",
    )
    chart = Chart("gain", "Gain over independent samples", panels, caption)
    return Section("gain", title, (*text, *_temperature_ends(evidence)), (chart,), tuple(_gain_tables(evidence, own, rivals)))


def _rival_colours(evidence: Evidence, labels: Sequence[str]) -> dict[str, int]:
    """Of the arms their own, of rivals that are no arms further ones, of computed samplers black: the seventh arm's as well, from which the marker tells them apart."""
    free = max(evidence.colours.values()) + 1
    found = {label: evidence.colours.get(label, free + i) for i, label in enumerate(labels) if label not in SAMPLERS.values()}
    for label in (label for label in labels if label in SAMPLERS.values()):
        taken = {*evidence.colours.values(), *found.values()}
        found[label] = next(number for number in itertools.count(BLACK, BLACK + 1) if number not in taken)
    return found


def _temperature_ends(evidence: Evidence) -> list[str]:
    """Of which arms an end of the temperatures sampled was the best one for pass@K: further out it may be higher, and the gain over it smaller."""
    k = evidence.head.trained_attempts or max((k for arm in evidence.evaluated for name in arm.problem_sets for k in evidence.values(arm, PASS, name)), default=1)
    told = []
    for arm in evidence.evaluated:
        best = evidence.best_temperatures(arm, k)
        ends = [f"{heat:g} in {best.count((heat, end))} of {len(best)}" for heat, end in sorted(set(best)) if end]
        if ends:
            told.append(f"{arm.label} ({', '.join(ends)})")
    if not told:
        return []
    return [f"An end of the temperatures sampled was the best for pass@{k}, so that another, further out, might do better, in so many evaluations (a seed on a problem set) of: {'; '.join(told)}."]


def _gain_tables(evidence: Evidence, own: Mapping[str, Mapping[str, Any]], rivals: Mapping[str, Mapping[str, Any]]) -> list[TextTable]:
    lines = [(place, f"{label} − its own", by_k) for place in own for label, by_k in own[place].items()]
    lines += [(place, f"{evidence.head.label} − {label}'s", by_k) for place in rivals for label, by_k in rivals[place].items()]
    return [by_k_table("accuracy − pass@k, in points", ("problems", "against"), lines, points)]


def _points_panel(title: str, curves: Sequence[Curve], evidence: Evidence) -> Panel:
    return Panel(title, curves, ylabel="difference, points", unit="points", bounds=None, trained=evidence.head.trained_attempts)


# ------------------------------------------------------------------------------------------------------------ differences


def difference_section(evidence: Evidence) -> Section | None:
    baseline = evidence.baseline
    others = [arm for arm in evidence.arms if arm is not baseline]
    if baseline is None or not others:
        return None
    found: dict[str, list[tuple[str, str, dict[int, Interval]]]] = {"accuracy": [], "tokens": []}
    measures: list[tuple[str, Measure]] = [("accuracy", ACCURACY), ("tokens", TOKENS)]
    for place in evidence.places:
        for quantity, measure in measures:
            for arm in others:
                if by_k := evidence.versus(arm, measure, baseline, measure, place):
                    found[quantity].append((place, arm.label, by_k))
    title = f"Against {baseline.label}"
    if not found["accuracy"]:
        return Section("difference", title, missing="Nothing to pair: arms need values.parquet on the same problems (mulligan eval with this version, same --problems, --limit and --seed).")
    panels = []
    for place in dict.fromkeys(place for place, _, _ in found["accuracy"]):
        curves = [Curve(label, by_k, colour=evidence.colours[label]) for p, label, by_k in found["accuracy"] if p == place]
        panels.append(_points_panel(place, curves, evidence))
    chart = Chart("difference", f"Accuracy − {baseline.label}'s, with as many attempts", panels, "Paired over problems. An interval that includes 0 does not show a difference.")
    tables = [by_k_table(f"accuracy − {baseline.label}'s, in points", ("problems", "arm"), found["accuracy"], points)]
    if found["tokens"]:
        tables.append(by_k_table(f"tokens sampled per problem − {baseline.label}'s", ("problems", "arm"), found["tokens"], tenths))
    return Section("difference", title, (), (chart,), tuple(tables))


# --------------------------------------------------------------------------------------------------------------- controls


def controls_section(evidence: Evidence) -> Section | None:
    title = "Controls: does it read its failures?"
    place = next((p for p in evidence.places if any(evidence.controls(arm, p) for arm in evidence.arms)), None)
    told_wrong = _false_wrong_table(evidence)
    if place is None and told_wrong:
        return Section("controls", title, ("Of the controls that change what an attempt sees none was played (mulligan eval RUN with --controls).",), (), tuple(told_wrong))
    if place is None:
        return Section("controls", title, missing="No controls were played. To see what is left without the history, the verdict or a true verdict: mulligan eval RUN with --controls.")
    panels, rows = [], []
    names = list(CONTROLS)
    for arm in evidence.arms:
        controls = evidence.controls(arm, place)
        if not controls:
            continue
        curves = [Curve("normal", evidence.values(arm, ACCURACY, place), colour=0)]
        curves += [Curve(_control(c), evidence.control_accuracy(arm, place, c), colour=_CONTROL_COLOURS[names.index(c)] if c in names else BLACK) for c in controls]
        panels.append(Panel(f"{arm.label}, {place}", [c for c in curves if c.points], trained=arm.trained_attempts))
        for where in evidence.places:
            rows += [_control_row(evidence, arm, where, c) for c in evidence.controls(arm, where)]
    headers = ("problems", "arm", "control", "k", "accuracy, %", "− normal, points", "share of the rise kept, %", "− own pass@k, points")
    note = f"Share of the rise kept: of that from {evidence.fewest} to k attempts; – where there is no clear rise. − own pass@k: whether the control still beats drawing again; – where no samples were drawn."
    tables = [TextTable("Accuracy under each control", headers, tuple(rows), (note,), labels=3), *told_wrong]
    text = (
        "The same model plays the same problems with a part of the dialogue taken away. What is kept without sight of the failed attempts is the work of a retry schedule, not of learning from failure.",
        *(text for name, text in _LIMITS.items() if any(name in evidence.controls(arm, place) for arm in evidence.arms)),
    )
    return Section("controls", title, text, (Chart("controls", "Accuracy under each control", panels, "Bars: 95 % intervals."),), tuple(tables))


def _control_row(evidence: Evidence, arm: Arm, place: str, control: str) -> tuple[str, ...]:
    accuracy, difference = evidence.control_accuracy(arm, place, control), evidence.control_difference(arm, place, control)
    k = headline_budget(accuracy, evidence.head.trained_attempts)  # of all arms the head's, so that their rows can be compared
    gain = evidence.control_gain(arm, place, control)
    cells = (str(k), percent(accuracy.get(k)), points(difference.get(k)), percent(evidence.kept(arm, place, control, k, min(accuracy, default=1))), points(gain.get(k)))
    return (place, arm.label, _control(control), *cells)


def _control(name: str) -> str:
    return CONTROLS.get(name, name.replace("_", " "))


def _false_wrong_table(evidence: Evidence) -> list[TextTable]:
    rows = []
    for arm in evidence.arms:
        for place in evidence.sets:
            tables = evidence.table(arm, place, "false_wrong")
            if len(tables) != len(arm.members):
                continue
            budgets = evidence.attempts_budgets(arm, place)
            cells = []
            for key in ("kept", "returned"):
                found = [t[key] for t in tables]
                counted = f"{sum(r['count'] for r in found):,} of {sum(r['total'] for r in found):,}" if len(budgets) == 1 else NOTHING
                cells += [counted, percent(evidence.false_wrong(arm, place, key))]
            rows.append((place, arm.label, _either(budgets), *cells))
    headers = ("problems", "arm", "k", "kept", "kept, %", "right again later", "right again later, %")
    notes = ("Of right answers that were called wrong, with k attempts: how many still stand in the next one, and how many come again at any later one.", *(() if evidence.false_wrong_intervals else _range_note(evidence)))
    return [TextTable("A false “wrong” after a right answer", headers, tuple(rows), notes, labels=2)] if rows else []


# ----------------------------------------------------------------------------------------------------------- equal tokens


def tokens_section(evidence: Evidence) -> Section | None:
    rows, against, panels = [], [], []
    for place in evidence.sets:
        curves = []
        for arm in evidence.arms:
            own = evidence.equal_tokens(arm, place)
            if own:
                curves.append(Curve(arm.label, {k: e.gain for k, e in own.items()}, colour=evidence.colours[arm.label]))
            accuracy = evidence.values(arm, ACCURACY, place)
            rows += [(place, arm.label, str(k), plain(e.tokens), plain(e.samples), percent(accuracy.get(k)), percent(e.passed), points(e.gain)) for k, e in own.items()]
        if curves:
            panels.append(_points_panel(place, curves, evidence))
        for label, of_rival in evidence.equal_tokens_of_rivals(evidence.head, place).items():
            against += [(place, label, str(k), *((plain(e.samples), percent(e.passed), points(e.gain)) if e else (NOTHING,) * 3)) for k, e in of_rival.items()]
    text = "The same comparison at equal cost: independent sampling that stops at its first success may spend as many tokens, on average, as the dialogues with k attempts."
    ranges = _several_seeds(evidence) and not evidence.token_intervals
    tables = []
    if rows:
        text += " Bars are the lowest and the highest seed." if ranges else ""
        headers = ("problems", "arm", "k", "tokens per problem", "samples that they buy", "accuracy, %", "independent, %", "gain, points")
        tables.append(TextTable("At equal tokens", headers, tuple(rows), _range_note(evidence, "Accuracy") if ranges else (), labels=2))
    if against:
        title, headers = f"{evidence.head.label} at equal tokens, against the samples of others", ("problems", "samples of", "k", "samples that the tokens buy", "independent, %", "gain, points")
        note = f"95 % intervals over seeds x problems. {NOTHING}: all that was sampled of a seed costs less than the dialogues, and does not solve everything; with more samples (eval.samples) there is a figure."
        tables.append(TextTable(title, headers, tuple(against), (note,), labels=2))
    if not tables:
        return None
    chart = Chart("equal_tokens", "Gain at equal tokens", panels, "Accuracy − independent sampling with the same tokens. Above 0: the dialogues are worth their tokens.")
    return Section("tokens", "At equal tokens", (text,), (chart,) if panels else (), tuple(tables))


# --------------------------------------------------------------------------------------------------------------- attempts


def attempts_section(evidence: Evidence) -> Section | None:
    kinds = [
        ("success", "conditional_success", "Success at attempt t, once reached", "solved"),
        ("repeats", "repeat_rate", "Answers that repeat an earlier wrong one", "of answers"),
        ("missing", "no_answer", "Attempts without an answer", "of attempts"),
        ("truncated", "truncated", "Attempts cut by a token cap", "of attempts"),
    ]
    charts = []
    for name, key, title, ylabel in kinds:
        panels = []
        for place in evidence.sets:
            curves = [Curve(arm.label, rates, colour=evidence.colours[arm.label]) for arm in evidence.evaluated if (rates := evidence.rates(arm, place, key))]
            if curves:
                fits = (0.0, 1.0) if key == "conditional_success" else None
                panels.append(Panel(place, curves, "attempt t", ylabel, bounds=fits))
        if panels and (key in ("conditional_success", "repeat_rate") or any(p.high > 0 and p.mean > 0 for panel in panels for c in panel.curves for p in c.points.values())):
            charts.append(Chart(name, title, panels))
    rows = [row for place in evidence.sets for arm in evidence.evaluated if (row := _attempts_row(evidence, arm, place))]
    if not rows:
        return None
    headers = ("problems", "arm", "k", "attempts used", "repeats, %", "missing, %", "cut, %", "tokens per problem", "tokens per solved")
    within = [(place, arm.label, by_k) for place in evidence.places for arm in evidence.evaluated if (by_k := evidence.repeats_within(arm, place))]
    ranges = _several_seeds(evidence) and not evidence.attempt_intervals
    whole = "seeds and whole problems" if _several_seeds(evidence) else "whole problems"
    bars = "bars are the lowest and the highest seed" if ranges else f"intervals resample {whole}"
    text = (f"Figures and first table: {_whose_attempts(evidence)} Attempts of one dialogue are not independent: {bars}.",)
    tables = [TextTable("Over all attempts", headers, tuple(rows), _range_note(evidence, "Tokens") if ranges else (), labels=2)]
    if within:
        tables.append(by_k_table("Answers that repeat an earlier wrong one within k attempts, %", ("problems", "arm"), within, percent))
    return Section("attempts", "Attempt by attempt", text, tuple(charts), tuple(tables))


def _whose_attempts(evidence: Evidence) -> str:
    """Which dialogues the rates by attempt are of, and of which arms these allowed more attempts than training did."""
    shown = [(arm, evidence.attempts_budgets(arm, place)) for place in evidence.sets for arm in evidence.evaluated if place in arm.problem_sets]
    ks = sorted({k for _, budgets in shown for k in budgets})
    one_pass = {figures.get("mode") == "one_pass" for arm, _ in shown for m in arm.members for figures in m.problem_sets.values()}
    count = "k attempts" if len(ks) > 1 else attempts_text(*ks)
    first = f"the first {count} of each dialogue"
    text = f"from {first}" if one_pass == {True} else f"from the dialogues with {count}{f' (--one-pass: {first})' if True in one_pass else ''}"
    text += ", k as in that table." if len(ks) > 1 else "."
    if any(len(budgets) > 1 for _, budgets in shown):
        text += f" Where the seeds of an arm have different k they have no rates in common ({NOTHING})."
    beyond: dict[tuple[int, int], list[str]] = {}
    for arm, budgets in shown:
        if arm.trained_attempts and budgets[-1] > arm.trained_attempts:
            beyond.setdefault((budgets[-1], arm.trained_attempts), []).append(arm.label)
    for (k, trained), labels in beyond.items():
        whose = "" if len(set(labels)) == len({arm.label for arm, _ in shown}) else f"{', '.join(dict.fromkeys(labels))}: "
        hint = ": within the trained budget the figures may differ" if trained > 1 else ""  # of one attempt there is nothing else to show
        text += f" {whose}{'with' if whose else 'With'} {attempts_text(k)}, more than training gave ({trained}){hint}."
    return text


def _either(budgets: Sequence[int]) -> str:
    return " or ".join(map(str, budgets))


def _attempts_row(evidence: Evidence, arm: Arm, place: str) -> tuple[str, ...] | None:
    used = evidence.attempts_used(arm, place)
    if not used:
        return None
    budgets = evidence.attempts_budgets(arm, place)
    if len(budgets) > 1:
        return (place, arm.label, _either(budgets), *(NOTHING,) * 6)
    k = budgets[0]
    rates = [percent(evidence.overall_rate(arm, place, key)) for key in ("repeat_rate", "no_answer", "truncated")]
    joined = evidence.tokens_per_solved(arm, place).get(k)
    single = [found[k].mean for t in evidence.table(arm, place, "tokens_per_solved") if k in (found := per_solved(t))]
    return (place, arm.label, str(k), number(used.get(k)), *rates, tenths(evidence.values(arm, TOKENS, place).get(k)), number(joined) if joined else _plain(_mean(single)))


# ------------------------------------------------------------------------------------------------------------------ power


def power_section(evidence: Evidence) -> Section | None:
    rows, text = [], []
    for place in evidence.sets:
        said = []
        for arm in (arm for arm in evidence.evaluated if place in arm.problem_sets):
            measured = {"rise": power(evidence, arm, place, "rise"), "gain": power(evidence, arm, place, "gain")}
            if arm is evidence.head and (rival := _strongest_arm(evidence, place)) is not None:
                measured[f"gain over {rival.label}'s"] = power_against(evidence, arm, rival, place)
            for what, found in measured.items():
                if not found:
                    continue
                needed = {points_: _mean([(p.get("problems_for") or {}).get(points_) for p in found]) for points_ in ("3", "5")}
                detectable, of_set = _mean([p.get("detectable") for p in found]), arm.members[0].problem_sets[place].get("problems")
                problems = _mean([p.get("problems", of_set) for p in found])
                what += f" ({len(found)} of {len(arm.members)} seeds)" if len(found) < len(arm.members) else ""
                cells = (_plain(problems), _plain(needed["3"]), _plain(needed["5"]), NOTHING if detectable is None else f"{100 * detectable:.1f}")
                rows.append((place, arm.label, what, *cells))
                if arm is evidence.head and detectable is not None and problems and problems == of_set:
                    said.append(f"a {what} of {100 * detectable:.1f} points or more (3 points take {_plain(needed['3'])} problems, 5 points {_plain(needed['5'])})")
        if said:
            text.append(f"{place}: {evidence.head.members[0].problem_sets[place]['problems']:,} problems and one seed can show {' and '.join(said)}.")
    if not rows:
        return None
    text.append("Where hardly a problem differs from the others, an interval reaches out to the share of unlike problems that a set of this size can miss (Wilson's bound).")
    headers = ("problems", "arm", "of", "number", "needed for 3 points", "needed for 5 points", "smallest that can be shown, points")
    note = f"Rise: from {evidence.fewest} to K attempts. Gain: accuracy with K attempts − its own pass@K, or another's. Paired over problems of one seed: shown in 80 % of the cases at the 5 % level, two-sided. A seed in which it is the same for every problem says nothing, and is left out."
    return Section("power", "What these problem sets can show", tuple(text), (), (TextTable("Power", headers, tuple(rows), (note,), labels=3),))


# ---------------------------------------------------------------------------------------------------------------- helpers


def by_k_table(title: str, labels: tuple[str, ...], lines: Sequence[tuple[str, str, Mapping[int, Interval]]], shown: Any) -> TextTable:
    ks = sorted({k for _, _, by_k in lines for k in by_k})
    rows = tuple((place, label, *(shown(by_k.get(k)) for k in ks)) for place, label, by_k in lines)
    return TextTable(title, (*labels, *(f"k = {k}" for k in ks)), rows, labels=len(labels))


def _several_seeds(evidence: Evidence) -> bool:
    return any(len(arm.members) > 1 for arm in evidence.evaluated)


def _range_note(evidence: Evidence, column: str | None = None) -> tuple[str, ...]:
    """What the brackets of a table are; `column` has intervals of its own."""
    if not _several_seeds(evidence):
        return ()
    others = "Of several seeds" if column is None else f"{column}: 95 % interval over seeds x problems. Others, of several seeds"
    return (f"{others}: their mean, in brackets the lowest and the highest, which is no confidence interval.",)


def _mean(found: Sequence[float | None]) -> float | None:
    known = [x for x in found if x is not None]
    return sum(known) / len(known) if known else None


def _plain(value: float | None) -> str:
    return NOTHING if value is None else plain(value)
