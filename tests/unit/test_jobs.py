"""Tasks run in order of what has to come before, as many at once as there are workers, and stop when the time is up."""

from __future__ import annotations

import io
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from mulligan.config import load_recipe
from mulligan.jobs import Bars, Job, JobDisplay, OutOfTime, Task, run_tasks

RECIPE = Path(__file__).parents[2] / "recipes/quickstart.toml"


class Work:
    """Counts who is at work, and keeps the order in which tasks began and ended."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.events: list[tuple[str, str]] = []
        self.at_once = self.most = 0

    def __call__(self, name: str) -> None:
        with self.lock:
            self.events.append(("begin", name))
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(0.02)
        with self.lock:
            self.events.append(("end", name))
            self.at_once -= 1

    def tasks(self, **after: str | None) -> list[Task]:
        return [Task(name, self, (name,), before) for name, before in after.items()]


def test_a_task_begins_when_what_it_needs_is_done_and_others_use_the_time():
    work = Work()
    with ThreadPoolExecutor(4) as pool:
        run_tasks(work.tasks(evaluation="training", training="warm_up", warm_up=None, other=None), pool.submit, 2)
    place = {event: i for i, event in enumerate(work.events)}
    assert len(work.events) == 8
    assert place["end", "warm_up"] < place["begin", "training"] < place["end", "training"] < place["begin", "evaluation"]
    assert place["begin", "other"] < place["end", "warm_up"]


@pytest.mark.parametrize("workers", [1, 3])
def test_as_many_at_once_as_there_are_workers_the_first_first(workers: int):
    work = Work()
    with ThreadPoolExecutor(8) as pool:
        run_tasks(work.tasks(**dict.fromkeys("abcdefg")), pool.submit, workers)
    assert work.most == workers
    if workers == 1:
        assert [name for event, name in work.events if event == "begin"] == list("abcdefg")


def test_what_a_task_raises_is_raised_and_nothing_begins_after_it():
    work = Work()

    def fail() -> None:
        raise ValueError("broken")

    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="broken"):
        run_tasks([Task("fail", fail, ()), *work.tasks(later=None)], pool.submit, 1)
    assert work.events == []


def test_when_the_time_is_up_the_rest_is_left():
    work = Work()
    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(OutOfTime):
            run_tasks(work.tasks(first=None, second="first"), pool.submit, 1, until=time.monotonic() + 0.01)
        run_tasks(work.tasks(third=None), pool.submit, 1, until=time.monotonic() + 60)
    assert ("begin", "second") not in work.events and ("end", "third") in work.events


@pytest.mark.parametrize("max_tokens", [None, 1000])
def test_the_share_that_is_done_grows_from_the_first_step_of_the_warm_up(max_tokens: int | None):
    """By steps, or by tokens where those end the training."""
    changes = ("warmup.steps=50", "train.steps=150", f"train.max_tokens={'null' if max_tokens is None else max_tokens}")
    shares: list[float] = []
    job = Job("run", RECIPE, changes, Path("unused"), evaluated=False)
    display = JobDisplay(job, load_recipe(RECIPE, changes), lambda _, share, __: shares.append(share))
    for step, tokens in ((10, 0), (50, 0), (60, 100), (95, 500), (200, 600), (250, 1000)):
        display.step_done({"step": step, "tokens": tokens}, {"loss": 1.0})
    assert shares == pytest.approx([0.05, 0.25, 0.325, 0.625, 0.7, 1.0] if max_tokens else [0.05, 0.25, 0.3, 0.475, 1.0, 1.0])


def test_without_a_terminal_a_job_prints_its_first_report_its_last_and_few_between():
    reports: queue.Queue[tuple[str, float, str]] = queue.Queue()
    text = io.StringIO()
    with Bars(Console(file=text), ["run"], reports):
        for share in (0.0, 0.0, 0.0, 0.5, 0.9, 1.0):
            reports.put(("run", share, f"at {share}"))
        while not reports.empty():
            time.sleep(0.01)
        time.sleep(0.1)
    assert text.getvalue().splitlines() == ["run: 0%  at 0.0", "run: 100%  at 1.0"]
