"""`mulligan report`: one HTML file, and its figures as PNG, SVG and CSV beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mulligan import __version__
from mulligan.evaluation.arms import Arm
from mulligan.evaluation.comparison import comparison_warnings
from mulligan.report.evidence import Evidence
from mulligan.report.headline import Headline, make_headline
from mulligan.report.page import asset, build_page
from mulligan.report.sections import Section, evaluation_sections
from mulligan.report.training import training_sections
from mulligan.transcripts import written_whole

BODY = """<main id="report" tabindex="-1" aria-busy="true"></main>
<div id="tip" role="status" aria-live="polite" hidden></div>"""


@dataclass(frozen=True, slots=True)
class Report:
    """What stands in a report: its evidence, what it says first, the sections on evaluations, and those on training."""

    evidence: Evidence
    headline: Headline
    evaluation: list[Section]
    training: list[Section]


def write_report(
    arms: Sequence[Arm], out: Path, files: Path, *, baseline: str | None = None, title: str | None = None, drawn: Sequence[Arm] | None = None
) -> Report:
    """Write the page to `out` and every figure to `files` (NAME.png, NAME.svg, NAME.csv); returns what stands in it.

    `drawn`: the arms in the files' figures, where a dozen would hide one another; the page and its tables have all.

    Raises:
        ConfigError: `baseline` is none of the arms.
        RunError: a run cannot be read, or a file cannot be written.
    """
    from mulligan.report.figures import write_chart

    evidence = Evidence(arms, baseline)
    report = Report(evidence, make_headline(evidence), evaluation_sections(evidence), training_sections(evidence))
    sections = [*report.evaluation, *report.training]
    name = title or " and ".join(arm.label for arm in arms[:3]) + (f" and {len(arms) - 3} more" if len(arms) > 3 else "")
    few = sections
    if drawn is not None:
        evidence_of_few = Evidence(drawn, baseline)
        few = [*evaluation_sections(evidence_of_few), *training_sections(evidence_of_few)]
    for section in few:
        for chart in section.charts:
            write_chart(chart, files)
    with written_whole(out, "the report") as temporary:
        temporary.write_text(build_report(evidence, report.headline, sections, name, files.name), encoding="utf-8")
    return report


def build_report(evidence: Evidence, headline: Headline, sections: Sequence[Section], title: str, files: str) -> str:
    """The page's text. `files`: how the page calls the folder of the figures."""
    data: dict[str, Any] = {
        "title": title,
        "made": f"mulligan {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "headline": headline.to_json(),
        "arms": [_arm(evidence, arm) for arm in evidence.arms],
        "warnings": _warnings(evidence),
        "sections": [section.to_json() for section in sections],
        "files": files,
    }
    return build_page(title=f"{title}: mulligan report", css=asset("report.css"), script=f"{asset('charts.js')}\n{asset('report.js')}", data=data, body=BODY)


def _arm(evidence: Evidence, arm: Arm) -> dict[str, Any]:
    run = arm.members[0].run
    told = f"{run.recipe.attempts}, {run.recipe.advantage.name}" if run else ""
    return {"label": arm.label, "style": evidence.colours[arm.label], "seeds": len(arm.members), "about": told}


def _warnings(evidence: Evidence) -> list[str]:
    """Of the comparison, then what the evaluations themselves warned of, each once with the arms that it is said of."""
    arms = [arm for arm in evidence.evaluated if arm.has_values]
    found = comparison_warnings(arms) if arms else []
    found += [f"{arm.label}: no values.parquet, so that it cannot be paired with others: mulligan eval with this version" for arm in evidence.evaluated if not arm.has_values]
    said: dict[str, dict[str, None]] = {}
    for arm in evidence.evaluated:
        for member in arm.members:
            for text in (text for figures in member.problem_sets.values() for text in figures.get("warnings") or ()):
                said.setdefault(text, {})[arm.label] = None
    found += [f"{', '.join(labels)}: {text}" for text, labels in said.items()]
    return list(dict.fromkeys(found))
