"""The results of an experiment with several arms and seeds, as one Markdown page: where they come from, one table for all arms, then every
table of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mulligan.evaluation.arms import Arm
from mulligan.evaluation.comparison import ACCURACY, GAIN, PASS
from mulligan.report.evidence import Evidence
from mulligan.report.headline import Headline
from mulligan.report.sections import Section
from mulligan.report.tables import NOTHING, TextTable, percent, points


def experiment_table(evidence: Evidence, headline: str, rivals: Sequence[str]) -> TextTable:
    """One row per arm: accuracy with one attempt and with K, K being the headline's trained budget, and what remains of the gain against
    each rival and under the controls."""
    arms = {arm.label: arm for arm in evidence.arms}
    place = evidence.main or ""
    k = evidence.budget(arms[headline], place)
    controls = [name for name in ("history_blind", "random_verdict") if name in evidence.controls(arms[headline], place)]
    there = [arm for arm in evidence.evaluated if k in evidence.values(arm, ACCURACY, place)]
    within = {arm.label: evidence.repeats_within(arm, place).get(k) for arm in there}
    all_within = bool(within) and all(within.values())  # not counted by evaluations of earlier versions
    budgets = sorted({b for arm in evidence.evaluated if evidence.overall_rate(arm, place, "repeat_rate") for b in evidence.attempts_budgets(arm, place)})
    among = f"within {k} attempts" if all_within else f"in the dialogues with {' or '.join(map(str, budgets))} attempts"
    among += " (k in the table Over all attempts)" if len(budgets) > 1 and not all_within else ""
    rows = []
    for arm in evidence.arms:
        accuracy = evidence.values(arm, ACCURACY, place)
        against = [_against(evidence, arm, arms[rival], place, k) if rival in arms else NOTHING for rival in rivals]
        kept = [percent(evidence.kept(arm, place, name, k)) if name in evidence.controls(arm, place) else NOTHING for name in controls]
        own = (percent(evidence.values(arm, PASS, place).get(k)), points(evidence.values(arm, GAIN, place).get(k)))
        repeats = percent(within.get(arm.label)) if all_within else _repeats(evidence, arm, place)
        rows.append((arm.label, str(len(arm.members)), percent(accuracy.get(1)), percent(accuracy.get(k)), *own, *against, repeats, *kept))
    names = {"history_blind": "gain kept, history-blind", "random_verdict": "gain kept, random verdict"}
    headers = ("arm", "seeds", "accuracy@1", f"accuracy@{k}", f"own pass@{k}", "gain over it", *(f"gain over {r}'s pass@{k}" for r in rivals), "repeats", *(names[c] for c in controls))
    known = [j for j in range(len(headers)) if j == 0 or any(row[j] != NOTHING for row in rows)]  # without samples nothing is known of pass@k
    headers, rows = tuple(headers[j] for j in known), [tuple(row[j] for j in known) for row in rows]
    note = (
        f"In percent and points, with 95 % intervals over seeds x problems ({place}); pass@k at the best of the temperatures sampled, chosen on other problems. Gain kept: the share of the "
        f"rise from 1 to {k} attempts that is left under the control; {NOTHING}: there is no clear rise, or it was not measured."
    )
    note += f" Repeats: answers that repeat an earlier wrong one, {among}." if "repeats" in headers else ""
    return TextTable("All arms", headers, tuple(rows), (note,), labels=1)


def _against(evidence: Evidence, arm: Arm, rival: Arm, place: str, k: int) -> str:
    return points(evidence.versus(arm, ACCURACY, rival, PASS, place).get(k))


def _repeats(evidence: Evidence, arm: Arm, place: str) -> str:
    """The share of answers that repeat an earlier wrong one; with an interval where counts for each problem were kept."""
    found = evidence.overall_rate(arm, place, "repeat_rate")
    if found is None:
        return NOTHING
    return percent(found) if evidence.attempt_intervals and math.isfinite(found.low) else f"{100 * found.mean:.1f}"


def experiment_markdown(title: str, caption: str, facts: dict[str, Any], headline: Headline, table: TextTable, sections: Sequence[Section], figures: str) -> str:
    """The page. `facts`: what stands in its first table; `figures`: the folder of the figures, relative to the page."""
    lines = [f"# {title}", "", *([caption, ""] if caption else []), f"**{headline.verdict}.** {' '.join(headline.sentences)}", ""]
    lines += [*(f"- {text}" for text in (headline.basis, *headline.caveats)), ""]
    lines += ["| what | value |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items()), "", table.to_markdown()]
    for section in sections:
        lines += [f"## {section.title}", "", *(f"{text}\n" for text in section.text)]
        lines += [f"![{chart.title}]({figures}/{chart.name}.png)\n" for chart in section.charts]
        lines += [one.to_markdown() for one in section.tables]
    return "\n".join(lines).rstrip() + "\n"


