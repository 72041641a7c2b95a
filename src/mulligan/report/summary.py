"""What the quickstart shows, in two sentences that are computed from its figures, nulls included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mulligan.evaluation import Interval
from mulligan.report.tables import intervals

Curve = dict[int, Interval]


def quickstart_sentences(summary: Mapping[str, Any]) -> tuple[str, str]:
    """One sentence on `readings` (trying again), one on `guess` (learning from feedback).

    A change counts only where the 95 % intervals do not overlap; otherwise the sentence says that nothing rose.

    Args:
        summary: {"readings": {"multi_attempt": E, "single_turn": E, "warm_up": E}, "guess": {"feedback": E, "verdict_only": E}},
            with E = {"accuracy": {k: {mean, low, high, n}}, "pass_at_k": the same or empty}.
    """
    return _readings(summary["readings"]), _guess(summary["guess"])


def _readings(arms: Mapping[str, Any]) -> str:
    multi, single = _accuracy(arms, "multi_attempt"), _accuracy(arms, "single_turn")
    last = max(set(multi) & set(single))
    text = (
        f"readings (trying again): with {last} attempts instead of {min(multi)}, the multi-attempt model {_change(multi, last)}, the single-turn model {_change(single, last)}; "
        f"at {last} attempts the multi-attempt model is {_against(multi[last], single[last])} the single-turn model"
    )
    passed = {name: intervals(arms[name].get("pass_at_k")) for name in arms}
    rivals = {name: curve[last] for name, curve in passed.items() if last in curve}
    if rivals:
        best = max(rivals, key=lambda name: rivals[name].mean)
        owner = "its own" if best == "multi_attempt" else f"the {_plain(best)} model's"
        count = f", the best of the {len(rivals)} models'" if len(rivals) > 1 else ""
        text += f" and {_against(multi[last], rivals[best])} {owner} pass@{last} from independent samples ({_percent(rivals[best])}{count})"
    return text + "."


def _guess(arms: Mapping[str, Any]) -> str:
    full, bare = _accuracy(arms, "feedback"), _accuracy(arms, "verdict_only")
    last = max(set(full) & set(bare))
    relation = _against(full[last], bare[last])
    if full[last].overlaps(bare[last]):
        verdict = "so this run does not show that the feedback is used"
    elif full[last].mean > bare[last].mean:
        verdict = "so what the feedback says is used, beyond merely drawing again"
    else:
        verdict = "so the feedback did harm here"
    return (
        f'guess (learning from feedback): with {last} attempts instead of {min(full)}, the model told "higher" or "lower" {_change(full, last)}, '
        f"the model told only that it was wrong {_change(bare, last)}; at {last} attempts the first is {relation} the second, {verdict}."
    )


def _accuracy(arms: Mapping[str, Any], name: str) -> Curve:
    curve = intervals(arms[name]["accuracy"])
    if not curve:
        raise ValueError(f"{name}: no accuracy to speak of")
    return curve


def _change(curve: Curve, last: int) -> str:
    first = min(curve)
    span = f"from {_percent(curve[first])} to {_percent(curve[last])}"
    if curve[first].overlaps(curve[last]):
        return f"did not rise ({span}, intervals overlap)"
    if curve[last].mean < curve[first].mean:
        return f"fell {span} ({_points(curve[last].mean - curve[first].mean)})"
    return f"rose {span} ({_points(curve[last].mean - curve[first].mean)})"


def _against(a: Interval, b: Interval) -> str:
    if a.overlaps(b):
        return "not clearly different from"
    difference = f"{abs(100 * (a.mean - b.mean)):.1f} points"
    return f"{difference} above" if a.mean > b.mean else f"{difference} below"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.mean:.1f} %"


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f} points"


def _plain(name: str) -> str:
    return {"single_turn": "single-turn", "warm_up": "warm-up", "multi_attempt": "multi-attempt"}.get(name, name.replace("_", " "))
