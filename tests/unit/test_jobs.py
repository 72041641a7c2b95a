"""Tasks run in order of what has to come before, as many at once as there are workers, and stop when the time is up."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mulligan.jobs import OutOfTime, Task, run_tasks


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
