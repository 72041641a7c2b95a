"""The worker pool: deadlines, deaths, memory, event loops, start and end."""

import asyncio
import ctypes
import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time

import pytest
from pool_calls import JOBS, call, dead, wait_for
from ticking import ticking

from mulligan.grading import dispatch
from mulligan.grading import nursery as nursery_module
from mulligan.grading.nursery import Nursery
from mulligan.grading.pool import WorkerPool, default_workers
from mulligan.grading.worker import pack_job


@pytest.fixture(scope="module")
def pool():
    pool = WorkerPool(2, memory_mb=256)
    yield pool
    pool.close()


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


def test_the_event_loop_goes_on_and_loops_may_follow_each_other(pool):
    async def main():
        jobs = [pool.run(JOBS, {"do": "add", "a": i, "b": 1}, 5.0) for i in range(100)]
        jobs += [pool.run(JOBS, {"do": "sleep", "seconds": 60}, 0.3) for _ in range(2)]
        async with ticking() as ticks:
            return await asyncio.gather(*jobs), ticks

    for _ in range(2):
        replies, ticks = asyncio.run(main())
        assert [r.value["sum"] for r in replies[:100]] == list(range(1, 101))
        assert [r.status for r in replies[100:]] == ["timeout"] * 2
        assert ticks[0] >= 15


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


def test_a_worker_is_replaced_after_many_jobs(monkeypatch):
    monkeypatch.setattr(dispatch, "JOBS_PER_WORKER", 20)
    pool = WorkerPool(1)
    try:
        replies = [f.result(timeout=20) for f in [pool.submit(JOBS, {"do": "add", "a": 0, "b": 0}, 5.0) for _ in range(100)]]
        pids = [r.value["pid"] for r in replies]
        assert all(pids.count(pid) <= 20 for pid in pids) and len(set(pids)) >= 5
    finally:
        pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is not enforced elsewhere")
def test_memory_that_earlier_jobs_kept_is_not_held_against_a_later_one():
    pool = WorkerPool(1, memory_mb=256)
    try:
        for _ in range(12):  # 600 MB in all
            assert call(pool, do="keep", bytes=50 << 20).status == "ok"
        first = call(pool, do="keep", bytes=150 << 20, seconds=0.1).value["pid"]
        assert call(pool, do="add", a=0, b=0).value["pid"] != first, "more than half of the limit is in use: time for another worker"
    finally:
        pool.close()


def test_large_payloads_and_results(pool):
    big = "x" * (3 << 20)
    futures = [pool.submit(JOBS, {"do": "echo", "data": big, "back": 2 << 20}, 5.0) for _ in range(4)]
    for future in futures:
        reply = future.result(timeout=20)
        assert reply.value["size"] == len(big) and len(reply.value["data"]) == 2 << 20


# ------------------------------------------------------------------------------------------------------ clocks, event loop


def test_a_worker_keeps_its_own_clock():
    """Nobody watches here: the process ends by itself a moment after its deadline, however its parent fares."""
    nursery = Nursery(1 << 30)
    try:
        nursery.fork(JOBS)
        ready = []
        while not ready:
            select.select([nursery.control], [], [], 30)
            ready = nursery.receive()
        (worker,) = ready
        worker.send(pack_job(JOBS, {"do": "spin", "seconds": 60}, 0.3))
        start = time.monotonic()
        alive = True
        while alive:
            assert select.select([worker.sock], [], [], 5)[0], "it is still at work"
            _, alive = worker.receive()
        assert 0.25 < time.monotonic() - start < 1.5
    finally:
        nursery.discard()


def test_a_worker_without_its_own_clock_is_stopped_all_the_same(pool):
    reply = call(pool, deadline=0.3, do="ignore_alarm", seconds=60)
    assert reply.status == "timeout" and reply.ms < 1300


def test_an_answer_that_came_in_time_counts_though_the_interpreter_was_held_up(pool):
    call(pool, do="add", a=1, b=1)
    hold = ctypes.PyDLL(None).usleep  # keeps the interpreter's lock
    quick = pool.submit(JOBS, {"do": "sleep", "seconds": 0.1}, 0.3)
    slow = pool.submit(JOBS, {"do": "sleep", "seconds": 60}, 0.3)
    time.sleep(0.03)
    hold(1_000_000)
    assert quick.result(timeout=5).status == "ok"
    assert slow.result(timeout=5).status == "timeout"


def test_nothing_blocks_the_event_loop():
    """From the cold start on, through kills and deaths: no callback of the loop is late by more than a moment."""

    async def main():
        pool = WorkerPool(2)
        late = []

        async def watch():
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.005)
                late.append(time.monotonic() - before - 0.005)

        watching = asyncio.ensure_future(watch())
        await asyncio.sleep(0.02)
        jobs = [pool.run(JOBS, {"do": "add", "a": i, "b": 0}, 5.0) for i in range(100)]
        jobs += [pool.run(JOBS, {"do": "spin", "seconds": 60}, 0.2) for _ in range(4)]
        jobs += [pool.run(JOBS, {"do": "die"}, 5.0) for _ in range(4)]
        await asyncio.gather(*jobs)
        watching.cancel()
        pool.close()
        return late

    late = asyncio.run(main())
    assert len(late) > 20 and max(late) < 0.25


# ------------------------------------------------------------------------------------------------------------- breakdowns


def test_a_nursery_that_cannot_live_is_reported_and_not_tried_for_ever(monkeypatch):
    starts = []
    monkeypatch.setattr(nursery_module, "_BOOT", "raise SystemExit(3)")
    popen = subprocess.Popen
    monkeypatch.setattr(nursery_module.subprocess, "Popen", lambda *a, **k: starts.append(1) or popen(*a, **k))
    pool = WorkerPool(2)
    try:
        assert [f.result(timeout=20).status for f in [pool.submit(JOBS, {"do": "die"}, 1.0) for _ in range(3)]] == ["unavailable"] * 3
        time.sleep(0.3)
        assert len(starts) <= 6
        monkeypatch.undo()
        assert call(pool, do="add", a=1, b=1).status == "ok", "what was mended works again"
    finally:
        pool.close()


def test_a_fault_of_the_dispatcher_leaves_nobody_waiting(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    pool = WorkerPool(1)
    monkeypatch.setattr(pool._state, "_look_at_clocks", lambda: 1 / 0)
    reply = pool.submit(JOBS, {"do": "sleep", "seconds": 1}, 5.0).result(timeout=10)
    assert reply.status == "unavailable" and "ZeroDivisionError" in reply.detail
    assert pool.submit(JOBS, {"do": "add", "a": 1, "b": 1}, 5.0).result(timeout=5).status == "unavailable"
    pool.close()


def test_as_many_workers_as_cores_by_default():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert WorkerPool().workers == default_workers() == min(cores, 8)
    assert WorkerPool(3).workers == 3
