"""The front pages say what the results' pages say: every figure with an interval stands on a page of results, with that interval."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBER = r"[+-]?\d+(?:\.\d+)?"
FIGURE = re.compile(rf"({NUMBER})\**(?: %| points)?\** \[({NUMBER}), ({NUMBER})\]")


def figures(text):
    """Each (mean, low, high)."""
    return {tuple(float(number) for number in found) for found in FIGURE.findall(text)}


def bears_out(known, told):
    """Whether a figure is among those known: as it stands, in whole numbers, or what is lost as a positive number."""
    turned = {(-mean, -high, -low) for mean, low, high in known}
    return any(all(t == k or (t.is_integer() and abs(t - k) <= 0.5) for t, k in zip(told, one, strict=True)) for one in known | turned)


def pages(file, line):
    """The pages of results that a row of a table, or an item of a list, is about; of other text all of them."""
    linked = [(ROOT / file).parent / page for page in re.findall(r"\]\(((?:docs/results/)?[\w-]+\.md)\)", line)]
    return linked if linked and line.startswith(("|", "- [")) else sorted((ROOT / "docs/results").glob("[!R]*.md"))


@pytest.mark.parametrize("file", ["README.md", "docs/results/README.md"])
def test_figures_on_front_pages_stand_on_the_pages_that_they_tell_of(file):
    count, strangers = 0, []
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        told = figures(line)
        known = figures("\n".join(page.read_text(encoding="utf-8") for page in pages(file, line))) if told else set()
        count += len(told)
        strangers += [f"{one} in {line[:60]!r}" for one in told if not bears_out(known, one)]
    assert count > 15
    assert not strangers


def test_pages_have_the_pictures_that_they_show():
    for page in (ROOT / "docs/results").glob("*.md"):
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / picture).is_file(), f"{page.name} shows {picture}"
