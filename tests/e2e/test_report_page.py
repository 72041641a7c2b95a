"""The report in a real browser: nothing leaves the page, nothing runs but its own script, it fits a phone, follows dark mode, and prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from arms_on_disk import full_evaluation, training, write_run
from browser import PHONE, opened
from tiny_runs import tiny

from mulligan.cli import main
from mulligan.display import Display
from mulligan.train import train

HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)><b style="position:fixed">\u202e\u0000 ' + "long" * 60


@pytest.fixture(scope="module", autouse=True)  # before the browser: while that is open, no rollout can be played
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("report")
    for seed in range(5):
        write_run(base / f"multi{seed}", seed=seed, metrics=training(60))
        full_evaluation(base / f"multi{seed}", seed=seed, sets=("one", "two"))
    write_run(base / "single", attempts="fixed(1)", metrics=training(60, reward=0.3))
    full_evaluation(base / "single", seed=7, sets=("one", "two"), rates=(0.42, 0.43, 0.43, 0.44, 0.44))
    assert main(["report", *(str(base / n) for n in (*(f"multi{seed}" for seed in range(5)), "single")), "--out", str(base / "report.html")]) == 0
    write_run(base / "bad", metrics=training(5), name=HOSTILE, command=[HOSTILE])
    full_evaluation(base / "bad", sets=(HOSTILE,))
    assert main(["report", f"{HOSTILE.replace('=', '')}={base / 'bad'}", "--out", str(base / "hostile.html")]) == 0
    for name in ("zero", "zero2"):
        write_run(base / name, metrics=[{**line, **{key: 0.0 for key in line if key.startswith(("reward", "accuracy", "share_"))}} for line in training(5)])
        full_evaluation(base / name)
    assert main(["report", f"a\u200db\u202e={base / 'zero'}", f"c={base / 'zero2'}", "--out", str(base / "odd.html")]) == 0
    for name, attempts in (("real", "uniform(1,3)"), ("real-single", "fixed(1)")):
        train(tiny(attempts=attempts, train__eval_every=2), base / name, display=Display(quiet=True))
    assert main(["report", str(base / "real"), str(base / "real-single"), "--out", str(base / "real.html")]) == 0
    return base


@pytest.fixture
def page(chromium: Any, folder: Path) -> Iterator[Any]:
    with opened(chromium, folder / "report.html", wait_for="h1") as seen:
        yield seen


def test_it_opens_quietly_with_all_its_parts(page: Any) -> None:
    page.assert_quiet()
    assert page.page.locator("h1").inner_text() == "The model learns from its failures: it gains more than by drawing again, and less when it cannot see them"
    assert page.page.locator(".tone").inner_text() == "Learning from failures: shown"
    assert page.page.locator("section[id]").count() == 10
    assert "train.eval_every=50" in page.page.locator("section#progress").inner_text(), "what to run for the part that is not there"
    assert page.page.locator("figure").count() == 11
    assert page.page.locator("figure > details").count() == 11  # every figure has its table
    for name in ("accuracy", "gain", "controls"):
        cells = page.page.locator(f"#chart-{name} > details td").count()
        assert cells > 5
    caveat, headline = page.page.locator(".caveats").bounding_box(), page.page.locator(".headline").bounding_box()
    assert caveat["y"] + 60 < 900  # headline, figures and first caveat are seen without scrolling
    assert headline["y"] < 60


def test_curves_have_colours_markers_and_intervals(page: Any) -> None:
    plot = page.page.locator("#chart-accuracy .panel").first
    strokes = plot.locator("g.curve.arm .stroke").evaluate_all("nodes => nodes.map(n => getComputedStyle(n).stroke)")
    assert len(set(strokes)) == len(strokes) == 2
    shapes = plot.locator("g.curve.arm").evaluate_all("nodes => nodes.map(n => n.querySelector('.dot').getAttribute('d').length)")
    assert len(set(shapes)) == 2
    assert plot.locator("g.curve.arm .bar").count() == 10
    assert plot.locator(".beyond").count() == 1
    assert plot.locator("g.curve.bound").count() == 2
    assert page.page.locator("#chart-accuracy_by_set g.curve.bound").count() == 4


def test_values_under_the_pointer_and_the_arrow_keys(page: Any) -> None:
    plot, tip = page.page.locator("#chart-accuracy .plot").first, page.page.locator("#tip")
    plot.scroll_into_view_if_needed()
    assert tip.is_hidden()
    box = plot.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] * 0.14, box["y"] + 100)
    assert tip.inner_text().startswith("attempts allowed, k: 1")
    first = page.page.locator("#chart-accuracy > details table").first.locator("tbody tr").first.locator("td").first.inner_text()
    assert first.replace(" [", " % [") in tip.inner_text()
    page.page.mouse.move(5, 5)
    plot.focus()
    page.page.keyboard.press("Home")
    page.page.keyboard.press("ArrowRight")
    assert tip.inner_text().startswith("attempts allowed, k: 2")
    page.page.keyboard.press("Escape")
    plot.scroll_into_view_if_needed()
    assert tip.is_hidden()


def test_a_finger_reads_values_that_stay_until_it_taps_elsewhere(chromium: Any, folder: Path) -> None:
    with opened(chromium, folder / "report.html", size=PHONE, touch=True, wait_for="h1") as seen:
        plot, tip = seen.page.locator("#chart-accuracy .plot").first, seen.page.locator("#tip")
        plot.scroll_into_view_if_needed()
        plot.tap(position={"x": 60, "y": 60})
        assert tip.is_visible()
        assert tip.inner_text().startswith("attempts allowed, k: 1")
        seen.page.locator("#chart-accuracy h3").tap()
        assert tip.is_hidden()


def test_the_legend_switches_curves(page: Any) -> None:
    chart = page.page.locator("#chart-accuracy")
    button = chart.get_by_role("button", name="single: pass@k")
    curve = chart.locator('g[data-key="pass|1|single: pass@k"]').first
    assert curve.is_visible()
    button.click()
    assert not curve.is_visible()
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert curve.is_visible()


@pytest.mark.parametrize("name", ["report.html", "hostile.html"])
def test_a_phone_never_scrolls_sideways(chromium: Any, folder: Path, name: str) -> None:
    with opened(chromium, folder / name, size=PHONE, touch=True, wait_for="h1") as seen:
        assert seen.width_of_content() <= PHONE[0]
        seen.page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
        assert seen.width_of_content() <= PHONE[0]
        tick = seen.page.locator(".plot .tick").first
        assert tick.bounding_box()["height"] >= 9  # the axes' figures can be read
        seen.assert_quiet()


@pytest.mark.parametrize("name", ["report.html", "hostile.html"])
def test_a_phone_shows_the_whole_caption_of_a_table_that_goes_on_to_the_right(chromium: Any, folder: Path, name: str) -> None:
    places = """(by) => [...document.querySelectorAll(".scroll")].filter((part) => part.scrollWidth > part.clientWidth).map((part) => {
        part.scrollLeft = by;
        const text = document.createRange();
        text.selectNodeContents(part.querySelector("caption"));
        const box = text.getBoundingClientRect();
        return [box.left, box.right];
    })"""
    with opened(chromium, folder / name, size=PHONE, touch=True, wait_for="h1") as seen:
        found = [place for by in (0, 60) for place in seen.page.evaluate(places, by)]
        assert len(found) > 3
        assert all(left >= 0 and right <= PHONE[0] for left, right in found)


def test_dark_and_light_have_their_own_colours_and_contrast(chromium: Any, folder: Path) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        with opened(chromium, folder / "report.html", scheme=scheme, wait_for="h1") as seen:
            colours[scheme] = seen.page.evaluate(
                "() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
                " getComputedStyle(document.querySelector('g.curve.s0 .stroke')).stroke]"
            )
    (paper, ink, curve), (dark_paper, dark_ink, dark_curve) = colours["light"], colours["dark"]
    assert brightness(paper) > 240 > 60 > brightness(ink)
    assert brightness(dark_paper) < 40 < 200 < brightness(dark_ink)
    assert curve != dark_curve
    assert brightness(dark_curve) > brightness(dark_paper) + 90


def test_print_is_light_and_whole(chromium: Any, folder: Path, tmp_path: Path) -> None:
    with opened(chromium, folder / "report.html", scheme="dark", wait_for="h1") as seen:
        seen.page.emulate_media(media="print")
        assert brightness(seen.page.evaluate("() => getComputedStyle(document.body).backgroundColor")) > 240
        assert seen.page.locator("nav").is_hidden()
        assert seen.page.locator("#chart-accuracy .plot").first.is_visible()
        pdf = seen.page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type/Page\n") >= 2


def test_what_is_folded_is_printed(chromium: Any, folder: Path) -> None:
    """Long tables are folded on the screen, and open on paper alone."""
    with opened(chromium, folder / "report.html", wait_for="h1") as seen:
        page = seen.page
        page.evaluate("() => document.querySelectorAll('details.folded, details.warnings').forEach((part, i) => { part.open = i === 0; })")
        parts = page.locator("details.folded, details.warnings")
        rows = page.locator("details.folded table tbody tr")
        assert parts.count() > 1 and rows.count() > 16
        states = "() => [...document.querySelectorAll('details.folded, details.warnings')].map((part) => part.open)"
        page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
        assert all(page.evaluate(states))
        assert rows.last.is_visible()
        page.evaluate("() => window.dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(states) == [True] + [False] * (parts.count() - 1)  # as it was


def test_hostile_names_are_text(chromium: Any, folder: Path) -> None:
    with opened(chromium, folder / "hostile.html", wait_for="h1") as seen:
        seen.page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
        seen.assert_quiet()
        assert seen.page.locator("img, main b[style], iframe, object").count() == 0
        assert "<script>alert(1)</script>" in seen.page.locator("main").inner_text()
        assert seen.page.locator(".hidden-character").count() > 0
        assert "\u202e" not in seen.page.locator("body").inner_text()


def test_hidden_characters_in_labels_and_panels_of_nothing_but_0(chromium: Any, folder: Path) -> None:
    with opened(chromium, folder / "odd.html", wait_for="h1") as seen:
        seen.assert_quiet()  # an axis without two ends would have placed everything at NaN
        chart = seen.page.locator("#chart-training_reward")
        curves = chart.locator("g.curve")
        count, drawn = curves.count(), chart.locator("path.stroke").evaluate_all("paths => paths.map((path) => path.getAttribute('d'))")
        assert count >= 2 and all(drawn) and not any("NaN" in path for path in drawn)
        for button in chart.locator(".legend button").all():
            button.click()
        assert chart.locator("g.curve[hidden]").count() == count


def test_a_real_run_is_shown(chromium: Any, folder: Path) -> None:
    with opened(chromium, folder / "real.html", wait_for="h1") as seen:
        seen.assert_quiet()
        figures = seen.page.locator("figure").evaluate_all("nodes => nodes.map(n => n.id)")
        assert {"chart-accuracy", "chart-training_reward", "chart-training", "chart-accuracy_by_step"} <= set(figures)
        assert seen.page.locator("#chart-training_reward g.curve.line").count() == 2
        commands = seen.page.locator("#runs").inner_text()
        assert "uniform(1,3)" in commands
        assert "NaN" not in seen.page.locator("main").inner_html()


def brightness(colour: str) -> float:
    red, green, blue = (float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])
    return 0.299 * red + 0.587 * green + 0.114 * blue
