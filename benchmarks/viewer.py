"""Suite `viewer`: how long `mulligan view` takes to make a page of 5,000 dialogues, and how long a browser takes to open and search it.

The browser is a headless Chromium (Debian's `chromium`, or MULLIGAN_CHROMIUM) driven by playwright; without them the suite says so. Times in the
browser are the page's own: from the start of the navigation to the first frame with list and dialogue, and from a key to what it brings.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Result, Settings, Table, spread

WORDS = ("the", "first", "number", "is", "seven", "so", "we", "add", "nine", "and", "find", "sixteen", "but", "that", "was", "wrong", "again")


def run(settings: Settings) -> Result:
    binary = os.environ.get("MULLIGAN_CHROMIUM") or next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        binary = None
    if binary is None:
        return Result("Viewer", [], ["Not measured: it needs playwright (mulligan[dev]) and a Chromium."])
    dialogues, tokens = (200, 30) if settings.tiny else (5000, 80)
    folder = settings.out / "viewer"
    made = [make_page(folder, dialogues, tokens) for _ in range(settings.rounds)]
    size = (folder / "view.html").stat().st_size
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])])
        rounds = [look(browser, folder / "view.html") for _ in range(settings.rounds + 1)][1:]  # the first one starts the browser's processes
        version = browser.version
        browser.close()
    table = Table(f"{dialogues:,} dialogues of up to three attempts with {tokens} tokens each, {size / 1e6:.1f} MB", ["seconds", "median (range)"])
    table.add("make the page", spread(made, 2))
    for name, key in (("open it: list and first dialogue", "open"), ("the last dialogue, in tokens", "tokens"), ("search all texts", "search")):
        table.add(name, spread([r[key] for r in rounds], 3))
    return Result("Viewer", [table], [f"Chromium {version}, headless, a fresh profile each time, the file on disk."], {"made": made, "rounds": rounds, "bytes": size})


def make_page(folder: Path, dialogues: int, tokens: int) -> float:
    """Write the dialogues once, then time the page; random words, log-probs and advantages, the same at every call."""
    from mulligan.model.tiny import build_tokenizer
    from mulligan.report.view import write_view

    if not (folder / "rollouts").exists():
        build_tokenizer(folder / "model")
        write_dialogues(folder, dialogues, tokens)
    start = time.perf_counter()
    write_view(folder, folder / "view.html")
    return time.perf_counter() - start


def write_dialogues(folder: Path, dialogues: int, tokens: int) -> None:
    from mulligan.model import load_tokenizer
    from mulligan.report.words import Words
    from mulligan.transcripts import rollout_table, write_table
    from mulligan.types import Attempt, Group, Problem, Rollout, StopReason, Transcript, Verdict, VerdictKind

    words = Words.of(load_tokenizer(str(folder / "model")), "tiny")
    draw = np.random.default_rng(0)
    per_step = 250
    for step in range(dialogues // per_step or 1):
        groups, advantages = [], []
        for n in range(min(per_step, dialogues)):
            transcript, attempts = Transcript(), []
            problem = Problem(f"problem{draw.integers(500)}", " ".join(draw.choice(WORDS, 20)), str(draw.integers(100)))
            right = int(draw.integers(1, 5))
            for index in range(1, min(right, 3) + 1):
                transcript.append_forced(draw.integers(5, 80, 20).tolist())
                ids = draw.integers(5, 80, tokens).tolist()
                start, end = transcript.append_sampled(ids, (-draw.exponential(0.7, tokens)).tolist())
                verdict = Verdict(VerdictKind.CORRECT if index == right else VerdictKind.WRONG, answer=str(draw.integers(100)))
                attempts.append(Attempt(index, start, end, words.decode(ids) or "", StopReason.ANSWER, verdict, "wrong, try again" if index < min(right, 3) else None))
            groups.append(Group(problem, (Rollout(problem, transcript, tuple(attempts), 3, (0.0,) * len(attempts), step, n % 8),)))
            advantages.append(draw.normal(size=sum(transcript.sampled)))
        write_table(folder / "rollouts" / f"step_{step:06d}.parquet", rollout_table(groups, stage="train", step=step, advantages=advantages))


def look(browser: Any, path: Path) -> dict[str, float]:
    """Seconds of one opening."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        page.goto(path.as_uri())
        page.wait_for_selector("body.ready", state="attached")
        opened = page.evaluate("() => new Promise((done) => { const look = () => { const [mark] = performance.getEntriesByName('ready'); mark ? done(mark.startTime) : setTimeout(look, 5); }; look(); })")
        page.focus("#list")
        start = time.perf_counter()
        page.keyboard.press("End")
        page.keyboard.press("t")
        page.wait_for_selector(".token-view")
        tokens = time.perf_counter() - start
        start = time.perf_counter()
        page.fill("#search", "no such text anywhere")
        page.wait_for_selector("#count:has-text('0 of'):not(:has-text('searching'))")
        return {"open": opened / 1000, "tokens": tokens, "search": time.perf_counter() - start}
    finally:
        context.close()
