"""The worker pool's queue: whose turn it is when jobs wait, and what becomes of them."""

import time

from pool_calls import JOBS, call, wait_for

from mulligan.grading import dispatch
from mulligan.grading.pool import WorkerPool


def test_queue_time_is_not_job_time():
    pool = WorkerPool(1)
    try:
        futures = [pool.submit(JOBS, {"do": "sleep", "seconds": 0.2}, 0.5) for _ in range(5)]
        assert [f.result(timeout=10).status for f in futures] == ["ok"] * 5
    finally:
        pool.close()


# ------------------------------------------------------------------------------------------------------ making way, strength


def test_a_job_that_takes_for_ever_makes_way_for_those_that_wait():
    """With one worker: the others are done long before the deadline of the one in front, which then has its whole deadline."""
    pool = WorkerPool(1)
    try:
        call(pool, do="add", a=1, b=1)
        start = time.monotonic()
        bomb = pool.submit(JOBS, {"do": "spin", "seconds": 60}, 1.0)
        others = [pool.submit(JOBS, {"do": "add", "a": i, "b": 1}, 1.0) for i in range(50)]
        assert [f.result(timeout=10).value["sum"] for f in others] == list(range(1, 51))
        assert time.monotonic() - start < 0.8, "the others waited for the bomb's deadline"
        reply = bomb.result(timeout=10)
        assert reply.status == "timeout" and reply.stage == "spinning" and 1000 <= reply.ms < 2000
    finally:
        pool.close()


def test_a_long_job_that_made_way_still_gets_its_answer():
    pool = WorkerPool(1)
    try:
        call(pool, do="add", a=1, b=1)
        long = pool.submit(JOBS, {"do": "sleep", "seconds": 0.4}, 1.0)
        others = [pool.submit(JOBS, {"do": "sleep", "seconds": 0.04}, 1.0) for _ in range(20)]
        assert long.result(timeout=10).status == "ok"
        assert [f.result(timeout=10).status for f in others] == ["ok"] * 20
    finally:
        pool.close()


def test_what_is_known_to_take_long_begins_after_the_others():
    pool = WorkerPool(1)
    try:
        call(pool, do="add", a=1, b=1)
        busy = pool.submit(JOBS, {"do": "sleep", "seconds": 0.05}, 1.0)
        done = []
        for name, later in (("later", True), ("first", False), ("second", False)):
            pool.submit(JOBS, {"do": "add", "a": 1, "b": 1}, 1.0, later=later).add_done_callback(lambda f, name=name: done.append(name))
        assert busy.result(timeout=5).status == "ok"
        assert wait_for(lambda: len(done) == 3)
        assert done == ["first", "second", "later"]
    finally:
        pool.close()


def test_what_was_put_back_comes_before_what_is_known_to_take_long():
    """A job that was slow for once does not wait for all bombs."""
    pool = WorkerPool(1)
    try:
        call(pool, do="add", a=1, b=1)
        slow = pool.submit(JOBS, {"do": "sleep", "seconds": 0.3}, 1.0)
        bombs = [pool.submit(JOBS, {"do": "spin", "seconds": 60}, 0.5, later=True) for _ in range(4)]
        quick = [pool.submit(JOBS, {"do": "add", "a": 1, "b": 1}, 1.0) for _ in range(5)]
        assert [f.result(timeout=5).status for f in quick] == ["ok"] * 5 and not slow.done()
        assert slow.result(timeout=5).status == "ok"
        assert not any(f.done() for f in bombs)
        assert [f.result(timeout=10).status for f in bombs] == ["timeout"] * 4
    finally:
        pool.close()


def test_long_jobs_are_not_put_off_for_ever(monkeypatch):
    """While new jobs keep coming, one of the long ones begins now and then."""
    monkeypatch.setattr(dispatch, "LONG_EVERY", 0.5)
    pool = WorkerPool(1)
    try:
        call(pool, do="add", a=1, b=1)
        long = pool.submit(JOBS, {"do": "sleep", "seconds": 0.3}, 1.0)
        end = time.monotonic() + 10
        waiting = [pool.submit(JOBS, {"do": "sleep", "seconds": 0.02}, 1.0) for _ in range(10)]
        while not long.done() and time.monotonic() < end:
            waiting = [f for f in waiting if not f.done()]
            waiting += [pool.submit(JOBS, {"do": "sleep", "seconds": 0.02}, 1.0) for _ in range(10 - len(waiting))]
            time.sleep(0.005)
        assert long.result(timeout=0).status == "ok"
        assert [f.result(timeout=10).status for f in waiting] == ["ok"] * len(waiting)
    finally:
        pool.close()


def test_the_pool_is_at_full_strength_after_bombs_and_deaths():
    pool = WorkerPool(3)
    try:
        jobs = [{"do": "spin", "seconds": 60}] * 4 + [{"do": "die"}] * 4 + [{"do": "hoard", "bytes": 2**40}] * 4
        replies = [f.result(timeout=30) for f in [pool.submit(JOBS, job, 0.3) for job in jobs]]
        assert [r.status for r in replies] == ["timeout"] * 4 + ["died"] * 4 + ["memory"] * 4
        assert wait_for(lambda: len(pool.pids) == 4), "three and the one in reserve"
        pids = {f.result(timeout=10).value["pid"] for f in [pool.submit(JOBS, {"do": "sleep", "seconds": 0.2}, 5.0) for _ in range(3)]}
        assert len(pids) == 3
    finally:
        pool.close()


def test_a_full_queue_is_done_completely_and_each_job_by_one_worker_at_a_time():
    pool = WorkerPool(2)
    try:
        futures = [pool.submit(JOBS, {"do": "add", "a": i, "b": 0}, 5.0) for i in range(3000)]
        replies = [f.result(timeout=60) for f in futures]
        assert [r.value["sum"] for r in replies] == list(range(3000))
        assert len({r.value["pid"] for r in replies}) == 2
    finally:
        pool.close()


def test_what_waits_in_a_workers_socket_survives_the_worker():
    """Jobs sent ahead are begun again elsewhere, unharmed, when the one before them kills the worker, or runs into its deadline."""
    pool = WorkerPool(1)
    try:
        call(pool, do="add", a=1, b=1)
        jobs = [{"do": "die"} if i % 10 == 0 else {"do": "add", "a": i, "b": 0} for i in range(100)]
        replies = [f.result(timeout=30) for f in [pool.submit(JOBS, job, 5.0) for job in jobs]]
        for i, reply in enumerate(replies):
            assert reply.status == ("died" if i % 10 == 0 else "ok")
            assert i % 10 == 0 or reply.value["sum"] == i
    finally:
        pool.close()


def test_deadlines_in_a_full_queue_count_from_the_start_of_each_job():
    """Forty jobs of 30 ms with a deadline of 150 ms: those that were sent ahead waited longer than that."""
    pool = WorkerPool(1)
    try:
        futures = [pool.submit(JOBS, {"do": "sleep", "seconds": 0.03}, 0.15) for _ in range(40)]
        assert [f.result(timeout=20).status for f in futures] == ["ok"] * 40
    finally:
        pool.close()


def test_a_job_that_was_cancelled_in_the_queue_never_runs():
    pool = WorkerPool(1)
    try:
        call(pool, do="add", a=1, b=1)
        running = pool.submit(JOBS, {"do": "sleep", "seconds": 0.04}, 5.0)
        queued = [pool.submit(JOBS, {"do": "sleep", "seconds": 30}, 40.0) for _ in range(3)]
        assert all(f.cancel() for f in queued)
        assert running.result(timeout=5).status == "ok"
        assert call(pool, deadline=1.0, do="add", a=1, b=1).status == "ok"
    finally:
        pool.close()
