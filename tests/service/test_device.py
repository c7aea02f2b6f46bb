"""One piece of work at a time has the device; what is more urgent gets it first, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import ExitStack

import pytest

from service.device import MOST_BEGUN_JOBS, Device, Urgency
from service.errors import BusyError, StoppingError


def test_one_at_a_time():
    """Work never overlaps, of whatever urgency."""
    running, most = threading.Lock(), []

    def work(progress):
        for step in range(5):
            assert running.acquire(blocking=False)
            time.sleep(0.002)
            running.release()
            progress(step, 5)
        most.append(1)

    async def scenario():
        device = Device(max_waiting=9)
        jobs = [device.submit_job(work, lambda seconds: (seconds,)) for _ in range(6)]
        jobs += [device.submit(work, urgency) for urgency in (Urgency.REQUEST, Urgency.REPLAY) * 4]
        await asyncio.gather(*(job.done for job in jobs))

    asyncio.run(scenario())
    assert len(most) == 14


def test_too_many_waiting_are_sent_away_with_a_time():
    """One has the device, `max_waiting` wait, the next gets BusyError with retry_after; so too when the
    places are free again but the work is not done."""
    hold = threading.Event()

    async def scenario():
        device = Device(max_waiting=2)
        with ExitStack() as places:
            for _ in range(3):
                places.enter_context(device.place())
            with pytest.raises(BusyError) as caught, device.place():
                pass
            assert caught.value.retry_after >= 1
            jobs = [device.submit(lambda progress: hold.wait(10), Urgency.REQUEST) for _ in range(3)]
        with pytest.raises(BusyError), device.place():
            pass
        hold.set()
        await asyncio.gather(*(job.done for job in jobs))
        with device.place():
            pass

    asyncio.run(scenario())


def test_golden_replays_go_before_what_waits():
    """A replay starts when the running work ends; the others keep their order."""
    hold, order = threading.Event(), []

    async def scenario():
        device = Device(max_waiting=9)
        jobs = [device.submit(lambda progress: hold.wait(10), Urgency.REQUEST)]
        jobs += [device.submit(lambda progress, n=n: order.append(n), Urgency.REQUEST) for n in range(3)]
        jobs += [device.submit(lambda progress, n=n: order.append(n), Urgency.REPLAY) for n in ("a", "b")]
        jobs[2].stop()  # a place in the queue that is empty by the time it is reached
        hold.set()
        await asyncio.gather(*(job.done for job in jobs), return_exceptions=True)

    asyncio.run(scenario())
    assert order == ["a", "b", 0, 2]


def test_stopped_work_ends_at_its_next_report():
    """A stopped job leaves the thread to the next one; a job stopped while waiting never starts."""
    started, reports = threading.Event(), []

    def endless(progress):
        started.set()
        for step in range(10_000):
            progress(step, 10_000)
            reports.append(step)
            time.sleep(0.005)

    async def scenario():
        device = Device(max_waiting=5)
        first = device.submit(endless, Urgency.REQUEST)
        second = device.submit(lambda progress: reports.append("second"), Urgency.REQUEST)
        await asyncio.to_thread(started.wait)
        second.stop()
        first.stop()
        assert await device.submit(lambda progress: "third", Urgency.REQUEST).done == "third"

    asyncio.run(scenario())
    assert "second" not in reports
    assert len(reports) < 1000


def test_closing_ends_what_runs():
    """Closing the device interrupts running work and drops what waits, so that the process can end."""

    def endless(progress):
        while True:
            progress(0, 1)
            time.sleep(0.005)

    async def scenario():
        device = Device(max_waiting=5)
        job, waiting = device.submit(endless, Urgency.REQUEST), device.submit(endless, Urgency.REQUEST)
        await asyncio.sleep(0.05)
        device.close()
        await asyncio.wait({job.done, waiting.done}, timeout=5)
        assert job.done.done() and waiting.done.cancelled()
        with pytest.raises(StoppingError):
            device.submit(endless, Urgency.REPLAY)

    asyncio.run(scenario())


def counting(name, told, steps=3, seconds=0.0):
    """Work that writes down each of its steps."""

    def work(progress):
        for step in range(steps):
            told.append((name, step))
            time.sleep(seconds)
            progress(step + 1, steps)
        return name

    return work


def test_a_job_makes_way_for_a_request_and_goes_on_where_it_was():
    """The request begins after one of the job's steps and is not interrupted; no step is done twice."""
    told, begun = [], threading.Event()

    def job(progress):
        for step in range(6):
            told.append(("job", step))
            begun.set()
            if step == 2:
                submitted.wait(10)
            progress(step + 1, 6)

    submitted = threading.Event()

    async def scenario():
        device = Device(max_waiting=5)
        working = device.submit_job(job, lambda seconds: (0.0,))
        await asyncio.to_thread(begun.wait)
        request = device.submit(counting("request", told), Urgency.REQUEST)
        submitted.set()
        assert await request.done == "request"
        await working.done

    asyncio.run(scenario())
    at = told.index(("request", 0))
    assert told[at : at + 3] == [("request", 0), ("request", 1), ("request", 2)]
    assert [one for one in told if one[0] == "job"] == [("job", step) for step in range(6)]
    assert 1 <= at <= 3


def test_jobs_take_turns_by_what_they_have_had():
    """A long job that began first does not keep a short one waiting for its end."""
    told = []

    async def scenario():
        device = Device(max_waiting=5)
        order = lambda seconds: (seconds // 0.05,)  # noqa: E731
        long = device.submit_job(counting("long", told, 60, 0.01), order)
        while len(told) < 20:
            await asyncio.sleep(0.005)
        short = device.submit_job(counting("short", told, 3, 0.01), order)
        await short.done
        assert not long.done.done() and short.seconds < long.seconds
        await long.done

    asyncio.run(scenario())
    assert [step for name, step in told if name == "long"] == list(range(60))
    assert told.index(("short", 2)) < 30


def test_no_more_jobs_begin_than_memory_is_meant_for():
    """However often the turn changes; a request and a replay still get the device."""
    begun, ended, told = set(), set(), []

    def job(name):
        def work(progress):
            begun.add(name)
            told.append(len(begun - ended))
            for step in range(5):
                time.sleep(0.002)
                progress(step, 5)
            ended.add(name)

        return work

    async def scenario():
        device = Device(max_waiting=5)
        jobs = [device.submit_job(job(n), lambda seconds: (seconds,)) for n in range(9)]
        while max(told, default=0) < MOST_BEGUN_JOBS:
            await asyncio.sleep(0.001)
        await device.submit(lambda progress: None, Urgency.REQUEST).done
        await device.submit(lambda progress: None, Urgency.REPLAY).done
        await asyncio.gather(*(one.done for one in jobs))

    asyncio.run(scenario())
    assert max(told) == MOST_BEGUN_JOBS and len(ended) == 9


def test_the_place_of_a_job_is_wanted_while_one_before_all_of_them_may_not_begin(monkeypatch):
    """Not by one that is no better, nor before it has settled; when one ends early the other one begins."""
    monkeypatch.setattr("service.device.SETTLED_SECONDS", 0.05)
    jobs, wanted = [], []

    def long(n):
        def work(progress):
            while True:
                time.sleep(0.002)
                progress(0, 1)
                if jobs[n].place_wanted:
                    wanted.append(jobs[n].seconds)
                    return

        return work

    async def scenario():
        device = Device(max_waiting=5)
        order = lambda seconds: (1 + seconds // 0.01,)  # noqa: E731
        jobs.extend(device.submit_job(long(n), order) for n in range(MOST_BEGUN_JOBS))
        equal = device.submit_job(lambda progress: "equal", lambda seconds: (10**6,))
        await asyncio.sleep(0.5)
        assert not wanted and not equal.done.done()
        small = device.submit_job(lambda progress: "small", lambda seconds: (0,))
        assert await asyncio.wait_for(small.done, 5) == "small"
        assert len(wanted) == 1 and wanted[0] >= 0.05
        for job in (*jobs, equal):
            job.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("closing", [False, True])
def test_a_job_that_waits_for_its_turn_can_be_stopped(closing):
    """It ends at once, not when it would have had the device again, and leaves the device to the other."""
    hold, told = threading.Event(), []

    async def scenario():
        device = Device(max_waiting=5)
        job = device.submit_job(counting("job", told, 1000, 0.001), lambda seconds: (0.0,))
        while not told:
            await asyncio.sleep(0.001)
        request = device.submit(lambda progress: hold.wait(10), Urgency.REQUEST)
        await asyncio.sleep(0.05)
        steps = len(told)
        if closing:
            device.close()
        else:
            job.stop()
        await asyncio.wait({job.done}, timeout=5)
        assert job.done.done() and len(told) == steps
        await asyncio.gather(job.done, return_exceptions=True)
        hold.set()
        await asyncio.wait({request.done}, timeout=5)
        assert request.done.result()
        if not closing:
            assert await device.submit(lambda progress: "next", Urgency.REQUEST).done == "next"

    asyncio.run(scenario())


def test_a_stop_while_a_job_makes_way_is_not_lost():
    """Planted: asked for at the very moment, when it is decided who goes first."""
    hold, told, asked = threading.Event(), [], []

    async def scenario():
        device = Device(max_waiting=5)

        def order(seconds):
            if device.unfinished and not asked and threading.current_thread() is not threading.main_thread():
                job.ask_to_stop()
                asked.append(len(told))
            return (0.0,)

        job = device.submit_job(counting("job", told, 1000, 0.001), order)
        while not told:
            await asyncio.sleep(0.001)
        request = device.submit(lambda progress: hold.wait(10), Urgency.REQUEST)
        await asyncio.wait({job.done}, timeout=3)
        ended = job.done.done()
        hold.set()
        assert await request.done
        await asyncio.gather(job.done, return_exceptions=True)
        assert asked and ended

    asyncio.run(scenario())


def test_work_that_fails_hands_the_device_over():
    """Its error reaches whoever waits for it."""

    def broken(progress):
        raise ValueError("broken")

    async def scenario():
        device = Device(max_waiting=5)
        first, second = device.submit(broken, Urgency.REQUEST), device.submit(lambda _: 2, Urgency.REQUEST)
        with pytest.raises(ValueError, match="broken"):
            await first.done
        assert await second.done == 2

    asyncio.run(scenario())
