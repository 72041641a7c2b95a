"""What the quickstart shows, in two sentences that are computed from its figures, nulls included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mulligan.evaluation import Interval
from mulligan.evaluation.values import ProblemValues, Values, aligned, difference_of
from mulligan.report.tables import intervals, percent, points_of, share

Curve = dict[int, Interval]


def quickstart_sentences(summary: Mapping[str, Any]) -> tuple[str, str]:
    """One sentence on `readings` (trying again), one on `guess` (learning from feedback).

    A change counts only where its paired 95 % interval leaves 0 out (where no such is known: if the two intervals do not overlap); otherwise the
    sentence says that nothing is shown.

    Args:
        summary: {"readings": {"multi_attempt": E, "single_turn": E, "warm_up": E}, "guess": {"feedback": E, "verdict_only": E}, "paired": {"readings": P,
            "guess": P}}, with E = {"accuracy": {k: I}, "pass_at_k": the same or empty}, I = {mean, low, high, n} and P = `paired_differences`; "paired" is
            missing from summaries of earlier versions.
    """
    paired = summary.get("paired", {})
    return _readings(summary["readings"], paired.get("readings", {})), _guess(summary["guess"], paired.get("guess", {}))


def paired_differences(arms: Mapping[str, ProblemValues], head: str) -> dict[str, dict[str, Any]]:
    """With the largest number of attempts that all have, K, each with its interval over the same problems: "rises", accuracy@K - accuracy with the fewest, by
    arm; "over" and "over_pass", the head's accuracy@K minus another arm's and minus any arm's pass@K."""
    solved = {name: values.quantities["solved"] for name, values in arms.items()}
    passed = {name: values.quantities["passed"] for name, values in arms.items() if "passed" in values.quantities}
    last = max(set.intersection(*map(set, solved.values())))
    rows = {name: aligned(arms[head].problem_ids, values.problem_ids) for name, values in arms.items()}

    def over(theirs: Mapping[str, Mapping[int, Values]]) -> dict[str, Interval | None]:
        shared = {name: (rows[name], by_k[last]) for name, by_k in theirs.items() if last in by_k}
        return {name: difference_of(solved[head][last], values_P[rows_P]) for name, (rows_P, values_P) in shared.items() if rows_P is not None}

    found = {
        "rises": {name: difference_of(by_k[last], by_k[min(by_k)]) for name, by_k in solved.items()},
        "over": over({name: by_k for name, by_k in solved.items() if name != head}),
        "over_pass": over(passed),
    }
    return {what: {name: one.to_json() for name, one in by_name.items() if one} for what, by_name in found.items()}


def _readings(arms: Mapping[str, Any], paired: Mapping[str, Any]) -> str:
    multi, single = _accuracy(arms, "multi_attempt"), _accuracy(arms, "single_turn")
    last = max(set(multi) & set(single))
    rises = {name: _paired(paired, "rises", name) for name in arms}
    text = (
        f"readings (trying again): with {last} attempts instead of {min(multi)}, the multi-attempt model {_change(multi, last, rises['multi_attempt'])}, the single-turn model "
        f"{_change(single, last, rises['single_turn'])}; at {last} attempts the multi-attempt model is {_against(multi[last], single[last], _paired(paired, 'over', 'single_turn'))} the single-turn model"
    )
    passed = {name: intervals(arms[name].get("pass_at_k")) for name in arms}
    rivals = {name: curve[last] for name, curve in passed.items() if last in curve}
    if rivals:
        best = max(rivals, key=lambda name: rivals[name].mean)
        owner = "its own" if best == "multi_attempt" else f"the {_plain(best)} model's"
        count = f", the best of the {len(rivals)} models'" if len(rivals) > 1 else ""
        against = _against(multi[last], rivals[best], _paired(paired, "over_pass", best))
        text += f" and {against} {owner} pass@{last} from independent samples ({share(rivals[best])}{count})"
    return text + "."


def _guess(arms: Mapping[str, Any], paired: Mapping[str, Any]) -> str:
    full, bare = _accuracy(arms, "feedback"), _accuracy(arms, "verdict_only")
    last = max(set(full) & set(bare))
    difference = _paired(paired, "over", "verdict_only")
    clear = _clear(full[last], bare[last], difference)
    if clear is None:
        verdict = "so this run does not show that the feedback is used"
    elif clear:
        verdict = "so what the feedback says is used, beyond merely drawing again"
    else:
        verdict = "so the feedback did harm here"
    return (
        f'guess (learning from feedback): with {last} attempts instead of {min(full)}, the model told "higher" or "lower" {_change(full, last, _paired(paired, "rises", "feedback"))}, '
        f"the model told only that it was wrong {_change(bare, last, _paired(paired, 'rises', 'verdict_only'))}; at {last} attempts the first is "
        f"{_against(full[last], bare[last], difference)} the second, {verdict}."
    )


def _paired(paired: Mapping[str, Any], what: str, name: str) -> Interval | None:
    return intervals({"0": paired.get(what, {}).get(name)}).get(0)


def _accuracy(arms: Mapping[str, Any], name: str) -> Curve:
    curve = intervals(arms[name]["accuracy"])
    if not curve:
        raise ValueError(f"{name}: no accuracy to speak of")
    return curve


def _clear(a: Interval, b: Interval, difference: Interval | None) -> bool | None:
    """Whether a is above b; None: not clearly different."""
    same = difference.low <= 0 <= difference.high if difference else a.overlaps(b)
    return None if same else a.mean > b.mean


def _change(curve: Curve, last: int, rise: Interval | None) -> str:
    first = min(curve)
    span = f"from {share(curve[first])} to {share(curve[last])}"
    difference = points_of(rise) if rise else f"{100 * (curve[last].mean - curve[first].mean):+.1f} points"
    clear = _clear(curve[last], curve[first], rise)
    if clear is None:
        return f"did not clearly rise ({span}{f': {difference}' if rise else ', intervals overlap'})"
    return f"{'rose' if clear else 'fell'} {span} ({difference})"


def _against(a: Interval, b: Interval, difference: Interval | None) -> str:
    clear = _clear(a, b, difference)
    if clear is None:
        return f"not clearly different{f' ({points_of(difference)})' if difference else ''} from"
    if difference is None:
        return f"{abs(100 * (a.mean - b.mean)):.1f} points {'above' if clear else 'below'}"
    size = difference if clear else Interval(-difference.mean, -difference.high, -difference.low, difference.n)
    return f"{percent(size).replace(' [', ' points [')} {'above' if clear else 'below'}"


def _plain(name: str) -> str:
    return {"single_turn": "single-turn", "warm_up": "warm-up", "multi_attempt": "multi-attempt"}.get(name, name.replace("_", " "))
