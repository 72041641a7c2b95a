"""`mulligan report`: one HTML file, and its figures as PNG, SVG and CSV beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mulligan import __version__
from mulligan.evaluation.arms import Arm, how_to_evaluate
from mulligan.evaluation.comparison import comparison_warnings, evaluation_warnings
from mulligan.evaluation.faults import FEW
from mulligan.report.chart import Chart
from mulligan.report.evidence import Evidence
from mulligan.report.headline import Headline, make_headline
from mulligan.report.names import short_names, shortened
from mulligan.report.page import asset, build_page
from mulligan.report.sections import Section, evaluation_sections
from mulligan.report.tables import TextTable
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
    report = Report(evidence, make_headline(evidence), *_sections(evidence))
    sections = [*report.evaluation, *report.training]
    name = title or " and ".join(arm.label for arm in arms[:3]) + (f" and {len(arms) - 3} more" if len(arms) > 3 else "")
    charts = {chart.name: chart for section in sections for chart in section.charts}
    if drawn is not None:  # a figure that speaks of other arms alone is drawn of all
        charts |= {chart.name: chart for part in _sections(Evidence(drawn, baseline)) for section in part for chart in section.charts}
    for chart in charts.values():
        write_chart(chart, files)
    with written_whole(out, "the report") as temporary:
        temporary.write_text(build_report(evidence, report.headline, sections, name, os.path.relpath(files, out.parent)), encoding="utf-8")
    return report


def _sections(evidence: Evidence) -> tuple[list[Section], list[Section]]:
    """Those on evaluations, and those on training."""
    names = short_names(evidence.sets)
    training = [renamed(section, names) if section.id == "progress" else section for section in training_sections(evidence)]
    return named(evaluation_sections(evidence), names), training


def named(sections: Sequence[Section], names: Mapping[str, str]) -> list[Section]:
    """Sections in which problem sets stand by these names; where they are not the sources themselves, the first has a table of them.

    A column of problems that says the same in every row is left out of a table, which has it in its title.
    """
    told = [renamed(section, names) for section in sections]
    if told and any(short != source for source, short in names.items()):
        table = TextTable("Problem sets", ("name", "source"), tuple((short, source) for source, short in names.items()), labels=2)
        told[0] = replace(told[0], tables=(*told[0].tables, table))
    return told


def renamed(section: Section, names: Mapping[str, str]) -> Section:
    """One section, without the table of names."""

    def table(one: TextTable) -> TextTable:
        rows = tuple(tuple(shortened(cell, names) for cell in row) for row in one.rows)
        if one.headers[0] == "problems" and len({row[0] for row in rows}) == 1:
            return replace(one, title=f"{one.title} ({rows[0][0]})", headers=one.headers[1:], rows=tuple(row[1:] for row in rows), labels=one.labels - 1)
        return replace(one, rows=rows)

    def chart(one: Chart) -> Chart:
        return replace(one, panels=[replace(panel, title=shortened(panel.title, names)) for panel in one.panels])

    text = tuple(shortened(one, names) for one in section.text)
    return replace(section, text=text, charts=tuple(map(chart, section.charts)), tables=tuple(map(table, section.tables)))


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
    pairs = zip(evidence.trained, evidence.arms, strict=True)
    missing = [(arm, m) for arm, evaluated in pairs for m in arm.members if evaluated is not arm and m not in evaluated.members]
    found = [f"{arm.label}: {m.folder} was not evaluated, and takes no part in its figures but those of training: {how_to_evaluate(m.run) if m.run else ''}" for arm, m in missing]
    found += comparison_warnings(arms) if arms else []
    found += [f"{arm.label}: no values.parquet, so that it cannot be paired with others: mulligan eval with this version" for arm in evidence.evaluated if not arm.has_values]
    counted = {name for name in evidence.sets if any(text.startswith(f"{name}: ") and FEW.search(text) for text in found)}
    found += evaluation_warnings(evidence.evaluated, evidence.sets, counted)  # the power section has the arms' own figures for small sets
    names = short_names(evidence.sets)
    return [shortened(text, names) for text in dict.fromkeys(found)]
