"""The worker pool: deadlines, deaths, memory, event loops, start and end."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mulligan.grading.pool import WorkerPool

JOBS = "grading_jobs"


@pytest.fixture(scope="module")
def pool():
    pool = WorkerPool(2, memory_mb=256)
    yield pool
    pool.close()


def call(pool, deadline=5.0, **payload):
    return pool.submit(JOBS, payload, deadline).result(timeout=30)


def dead(pid):
    """Gone, or a zombie that its reaper has not come to yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_a_job_runs_in_another_process_without_torch(pool):
    reply = call(pool, do="add", a=2, b=3)
    assert reply.status == "ok" and reply.value["sum"] == 5
    assert reply.value["pid"] != os.getpid() and reply.value["torch"] is False
    assert 0 <= reply.ms < 1000


def test_nothing_starts_before_the_first_job():
    threads = threading.active_count()
    pool = WorkerPool(4)
    assert not pool.started and pool.pids == [] and threading.active_count() == threads
    pool.close()
    assert pool.submit(JOBS, {}, 1.0).result().status == "unavailable"


def test_a_worker_is_kept_between_jobs():
    pool = WorkerPool(1)
    try:
        first = call(pool, do="add", a=1, b=1).value["pid"]
        assert call(pool, do="add", a=1, b=1).value["pid"] == first and first in pool.pids
    finally:
        pool.close()


def test_deadline_kills_and_respawns(pool):
    start = time.monotonic()
    reply = call(pool, deadline=0.3, do="sleep", seconds=60)
    assert reply.status == "timeout" and reply.stage == "asleep"
    assert 0.3 <= time.monotonic() - start < 1.3 and 300 <= reply.ms < 1300
    assert call(pool, do="add", a=1, b=1).status == "ok"


def test_a_worker_that_dies_by_its_job(pool):
    reply = call(pool, do="die")
    assert reply.status == "died" and reply.stage == "dying"
    assert call(pool, do="add", a=1, b=1).status == "ok"


def test_a_worker_killed_from_outside_in_mid_job_does_its_job_again():
    pool = WorkerPool(1)
    try:
        future = pool.submit(JOBS, {"do": "sleep", "seconds": 0.5}, 10.0)
        assert wait_for(lambda: pool.pids)
        first = pool.pids[0]
        time.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        reply = future.result(timeout=10)
        assert reply.status == "ok" and reply.value["pid"] != first
        idle = pool.pids
        for pid in idle:
            os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: all(map(dead, idle)))
        assert call(pool, do="add", a=1, b=1).status == "ok"
    finally:
        pool.close()


def test_the_nursery_killed_from_outside_is_started_again():
    pool = WorkerPool(1)
    try:
        worker = call(pool, do="add", a=1, b=1).value["pid"]
        os.kill(pool._state.nursery.process.pid, signal.SIGKILL)
        assert wait_for(lambda: dead(worker)), "a worker outlived its nursery"
        assert call(pool, do="add", a=1, b=1).status == "ok"
    finally:
        pool.close()


def test_an_exception_is_a_reply(pool):
    reply = call(pool, do="fail")
    assert reply.status == "error" and "KeyError" in reply.detail


def test_a_payload_that_cannot_be_sent_is_a_reply(pool):
    reply = call(pool, do="add", a=lambda: 1, b=2)
    assert reply.status == "error"
    assert call(pool, do="add", a=1, b=1).status == "ok"


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is not enforced elsewhere")
def test_memory_limit(pool):
    assert call(pool, do="hoard", bytes=2**30).status == "memory"
    assert call(pool, do="hoard", bytes=2**24).value == {"size": 2**24}


def test_a_module_that_is_missing_is_unavailable(pool):
    reply = pool.submit("no_such_module_at_all", {}, 5.0).result(timeout=30)
    assert reply.status == "unavailable" and "no_such_module_at_all" in reply.detail
    assert call(pool, do="add", a=1, b=1).status == "ok"


def test_workers_write_no_files_and_start_nothing(pool, tmp_path):
    marker = tmp_path / "marker"
    reply = call(pool, do="misbehave", marker=str(marker))
    assert sorted(reply.value["refused"]) == ["connect", "low_level", "process", "remove", "system", "write"]
    assert not marker.exists()


def test_queue_time_is_not_job_time():
    pool = WorkerPool(1)
    try:
        futures = [pool.submit(JOBS, {"do": "sleep", "seconds": 0.2}, 0.5) for _ in range(5)]
        assert [f.result(timeout=10).status for f in futures] == ["ok"] * 5
    finally:
        pool.close()


def test_the_event_loop_goes_on_and_loops_may_follow_each_other(pool):
    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticker = asyncio.ensure_future(tick())
        jobs = [pool.run(JOBS, {"do": "add", "a": i, "b": 1}, 5.0) for i in range(100)]
        jobs += [pool.run(JOBS, {"do": "sleep", "seconds": 60}, 0.3) for _ in range(2)]
        replies = await asyncio.gather(*jobs)
        ticker.cancel()
        return replies, ticks

    for _ in range(2):
        replies, ticks = asyncio.run(main())
        assert [r.value["sum"] for r in replies[:100]] == list(range(1, 101))
        assert [r.status for r in replies[100:]] == ["timeout"] * 2
        assert ticks >= 15


def test_a_loop_that_ends_with_jobs_under_way_leaves_the_pool_whole(pool):
    async def leave():
        task = asyncio.ensure_future(pool.run(JOBS, {"do": "sleep", "seconds": 0.2}, 5.0))
        await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(leave())
    assert call(pool, do="add", a=1, b=1).status == "ok"


def test_deadlines_hold_while_the_loop_is_blocked(pool):
    async def main():
        slow = asyncio.ensure_future(pool.run(JOBS, {"do": "sleep", "seconds": 60}, 0.2))
        quick = asyncio.ensure_future(pool.run(JOBS, {"do": "sleep", "seconds": 0.05}, 0.3))
        await asyncio.sleep(0)
        time.sleep(1.0)  # a sampler at work
        return await slow, await quick

    slow, quick = asyncio.run(main())
    assert slow.status == "timeout" and slow.ms < 900
    assert quick.status == "ok"


def test_close_ends_processes_and_resolves_what_is_open():
    pool = WorkerPool(1)
    running = pool.submit(JOBS, {"do": "sleep", "seconds": 60}, 60.0)
    queued = pool.submit(JOBS, {"do": "add", "a": 1, "b": 1}, 5.0)
    assert wait_for(lambda: pool.pids)
    pids = pool.pids
    pool.close()
    pool.close()
    assert running.result(timeout=5).status == queued.result(timeout=5).status == "unavailable"
    assert wait_for(lambda: all(map(dead, pids)))


def test_a_forgotten_pool_ends_its_processes():
    pool = WorkerPool(1)
    pid = call(pool, do="add", a=1, b=1).value["pid"]
    del pool
    gc.collect()
    assert wait_for(lambda: dead(pid))


def test_workers_die_with_the_parent_even_in_mid_job():
    script = (
        f"import os, sys, time; sys.path[:] = {sys.path!r}\n"
        "from mulligan.grading.pool import WorkerPool\n"
        f"pool = WorkerPool(2); pool.submit({JOBS!r}, {{'do': 'sleep', 'seconds': 60}}, 60.0)\n"
        f"print(pool.submit({JOBS!r}, {{'do': 'add', 'a': 1, 'b': 1}}, 5.0).result().value['pid'])\n"
        "while len(pool.pids) < 3: time.sleep(0.01)\n"
        "time.sleep(0.1); print(*pool.pids, pool._state.nursery.process.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    parent.stdout.readline()
    pids = [int(p) for p in parent.stdout.readline().split()]
    assert len(pids) == 4 and not any(dead(p) for p in pids)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_for(lambda: all(dead(p) for p in pids))


def test_a_forked_child_gets_processes_of_its_own(pool):
    call(pool, do="add", a=1, b=1)
    child = os.fork()
    if child == 0:  # pragma: no cover
        good = pool.submit(JOBS, {"do": "add", "a": 1, "b": 1}, 5.0).result(timeout=20).status == "ok"
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call(pool, do="add", a=1, b=1).status == "ok"
