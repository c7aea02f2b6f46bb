"""One worker thread for the device."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import ExitStack

import pytest

from service.device import Device
from service.errors import BusyError, StoppingError


def test_one_at_a_time_on_one_thread():
    """Work never overlaps and always runs on the same thread."""
    running, seen = threading.Lock(), set()

    def work(progress):
        assert running.acquire(blocking=False)
        seen.add(threading.get_ident())
        time.sleep(0.01)
        running.release()

    async def scenario():
        device = Device(max_waiting=9)
        await asyncio.gather(*(device.submit(work).done for _ in range(5)))

    asyncio.run(scenario())
    assert len(seen) == 1


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
            jobs = [device.submit(lambda progress: hold.wait(10)) for _ in range(3)]
        with pytest.raises(BusyError), device.place():
            pass
        hold.set()
        await asyncio.gather(*(job.done for job in jobs))
        with device.place():
            pass

    asyncio.run(scenario())


def test_golden_replays_go_before_what_waits():
    """Work submitted `first` starts when the running work ends; the others keep their order."""
    hold, order = threading.Event(), []

    async def scenario():
        device = Device(max_waiting=9)
        jobs = [device.submit(lambda progress: hold.wait(10))]
        jobs += [device.submit(lambda progress, n=n: order.append(n)) for n in range(3)]
        jobs += [device.submit(lambda progress, n=n: order.append(n), first=True) for n in ("a", "b")]
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
        first = device.submit(endless)
        second = device.submit(lambda progress: reports.append("second"))
        await asyncio.to_thread(started.wait)
        second.stop()
        first.stop()
        assert await device.submit(lambda progress: "third").done == "third"

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
        job, waiting = device.submit(endless), device.submit(endless)
        await asyncio.sleep(0.05)
        device.close()
        await asyncio.wait({job.done, waiting.done}, timeout=5)
        assert job.done.done() and waiting.done.cancelled()
        with pytest.raises(StoppingError):
            device.submit(endless, first=True)

    asyncio.run(scenario())
