"""Short names of problem sets: what tells them apart, and nothing lost where it does not."""

from __future__ import annotations

import pytest

from mulligan.report.chart import Chart, Curve, Panel
from mulligan.report.html import named, renamed
from mulligan.report.names import short_names, shortened
from mulligan.report.sections import Section
from mulligan.report.tables import TextTable

WORDS = "builtin:guess?split=test&style=words&low={}&high={}&ranges=3"


@pytest.mark.parametrize(
    ("sources", "shown"),
    [
        ([WORDS.format(1, 7), WORDS.format(11, 17)], ["guess (low=1, high=7)", "guess (low=11, high=17)"]),
        (["gym:family_relationships?max_family_size=5&size=100&seed=2", "gym:gcd?size=100&seed=2"], ["family_relationships", "gcd"]),
        (["gym:gcd?size=9", "gym:gcd?size=9&max=5"], ["gcd", "gcd (max=5)"]),
        (["math500.jsonl", "amc23.jsonl?answer=gold"], ["math500.jsonl", "amc23.jsonl"]),
        (["builtin:guess?split=test"], ["builtin:guess?split=test"]),  # nothing beside it
        (["gym:gcd", "builtin:gcd"], ["gym:gcd", "builtin:gcd"]),  # alike without their schemes
        (["gym:a + gym:b", "gym:c"], ["gym:a + gym:b", "gym:c"]),
        (["", "gym:c?x=1"], ["", "c"]),
    ],
)
def test_short_names(sources, shown):
    assert list(short_names(sources).values()) == shown


def test_of_sources_that_begin_alike_the_longest_is_meant():
    names = short_names(["gym:gcd?size=9", "gym:gcd?size=9&max=5"])
    assert shortened("gym:gcd?size=9&max=5: 9 problems; gym:gcd?size=9: 9", names) == "gcd (max=5): 9 problems; gcd: 9"


def test_a_longer_source_that_begins_like_a_known_one_is_left_as_it_is():
    names = short_names(["builtin:guess?split=test", "gym:gcd"])
    assert shortened("builtin:guess?split=test&style=words; builtin:guess?split=test: x; gym:gcd?size=3 (gym:gcd)", names) == "builtin:guess?split=test&style=words; guess: x; gym:gcd?size=3 (gcd)"


def test_sections_by_short_names_have_a_table_of_them():
    a, b = WORDS.format(1, 7), WORDS.format(11, 17)
    table = TextTable("T", ("problems", "arm", "k = 1"), ((a, "m", "1"), (b, "m", "2")), labels=2)
    chart = Chart("c", "C", [Panel(f"m, {a}", [Curve("m", {})])])
    section = Section("accuracy", "Accuracy", (f"{b}: 21 problems",), (chart,), (table,))
    (first,) = named([section], short_names([a, b]))
    assert first.text == ("guess (low=11, high=17): 21 problems",)
    assert [panel.title for panel in first.charts[0].panels] == ["m, guess (low=1, high=7)"]
    assert first.tables[0].rows == (("guess (low=1, high=7)", "m", "1"), ("guess (low=11, high=17)", "m", "2"))
    assert first.tables[1].rows == (("guess (low=1, high=7)", a), ("guess (low=11, high=17)", b))
    assert len(renamed(section, short_names([a, b])).tables) == 1


def test_a_column_of_problems_that_says_the_same_in_every_row_goes_to_the_title():
    table = TextTable("T", ("problems", "arm", "k = 1"), (("one", "m", "1"), ("one", "n", "2")), labels=2)
    (section,) = named([Section("s", "S", (), (), (table,))], {"one": "one"})
    (found,) = section.tables
    assert (found.title, found.headers, found.rows, found.labels) == ("T (one)", ("arm", "k = 1"), (("m", "1"), ("n", "2")), 1)
