"""The front pages say what the results' pages say: every interval in a line about a page stands on that page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBER = r"[+-]?\d+(?:\.\d+)?"


def intervals(text):
    return [(float(low), float(high)) for low, high in re.findall(rf"\[({NUMBER}), ({NUMBER})\]", text)]


def lines_about_pages(file):
    """Rows of tables, and items of lists, that link to pages of results; with the text of these."""
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        pages = [(ROOT / file).parent / page for page in re.findall(r"\]\(((?:docs/results/)?[\w-]+\.md)\)", line)]
        if line.startswith(("|", "- [")) and pages:
            yield line, "\n".join(page.read_text(encoding="utf-8") for page in pages)


@pytest.mark.parametrize("file", ["README.md", "docs/results/README.md"])
def test_intervals_on_front_pages_stand_on_the_pages_that_they_tell_of(file):
    found = [(line, pair, set(intervals(page))) for line, page in lines_about_pages(file) for pair in intervals(line)]
    assert len(found) > 10
    for line, pair, known in found:
        known |= {(-high, -low) for low, high in known}  # a loss may be told as what it takes away
        known |= {(float(round(low)), float(round(high))) for low, high in known}
        assert pair in known, f"{list(pair)} in {line[:100]!r}"


def test_figures_of_pages_are_there():
    for page in (ROOT / "docs/results").glob("*.md"):
        for figure in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / figure).is_file(), f"{page.name} shows {figure}"
