"""Jobs in trouble: many of them, a table that cannot be written, an image that ends its process."""

from __future__ import annotations

import asyncio
import time

import pytest
from service_world import acquired

from service.doorkeeper import Caller
from service.errors import RegistryError
from service.jobs.records import NewItem, Request
from service.jobs.table import Table

from .test_jobs import LONG, Service, residents  # noqa: F401 - a fixture


@pytest.fixture
def service(residents, tmp_path):  # noqa: F811
    with Service(residents, tmp_path / "jobs") as running:
        yield running


@pytest.fixture
def table(service):
    return service.jobs._table


@pytest.fixture
def batch(service, residents, table):  # noqa: F811
    """A thousand images that wait, as their model is away."""
    residents.failure = RegistryError("a registry", "none", "Start it.")
    images = [NewItem(f"{n}.tif", "0" * 64, "YX", (32, 32), 20) for n in range(1000)]
    request = Request("test-cells", 1, "r", 2, 2, 0)
    table.add("batch", Caller().name, request, images, key=None, fingerprint="f")
    return "batch"


def longest_wait(service, ask):
    """Seconds for which nothing else is answered while something is asked."""
    longest, over = 0.0, False

    async def beat():
        nonlocal longest
        while not over:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - began)

    beating = service.client.portal.start_task_soon(beat)
    time.sleep(0.1)
    ask()
    over = True
    beating.result()
    return longest


def test_the_cancel_of_a_large_batch_keeps_nobody_waiting(service, batch):
    """A thousand images end in one transaction, beside what is answered meanwhile."""
    reply = None

    def cancel():
        nonlocal reply
        reply = service.client.post(f"/jobs/{batch}/cancel")

    assert longest_wait(service, cancel) < 0.3
    assert reply.json()["state"] == "cancelled"
    assert {image["state"] for image in reply.json()["images"]} == {"cancelled"}


def test_a_look_at_one_image_of_a_batch_reads_that_one(service, batch, table):
    """Of a thousand; the refusal of one that is not there says how many there are."""
    assert table.item(batch, 7) == table.get(batch).items[7]
    began = time.perf_counter()
    for _ in range(100):
        service.client.get(f"/jobs/{batch}/images/7/result")
    assert time.perf_counter() - began < 2
    for number in (1000, 10**30):
        reply = service.client.get(f"/jobs/{batch}/images/{number}/view")
        assert reply.status_code == 404 and "from 0 to 999" in reply.json()["expected"]


def test_a_table_that_cannot_be_written_is_not_tried_again_at_once(service, table, monkeypatch, caplog):
    """Nor does work start anew for it; the log says so once a pause, and all is well when the disk is."""
    monkeypatch.setattr("service.jobs.runner.PAUSE_SECONDS", 0.4)
    hold = service.begun(acquired(96), **LONG)
    id = service.enter(acquired(32)).json()["id"]
    table._connection.execute("PRAGMA query_only = ON")
    time.sleep(1.5)
    assert 1 <= caplog.text.count("Traceback") <= 5
    table._connection.execute("PRAGMA query_only = OFF")
    service.wait_for(id, "done")
    service.client.post(f"/jobs/{hold}/cancel")
    service.wait_for(hold, "cancelled")


def test_an_end_that_cannot_be_entered_is_entered_later(service, table, monkeypatch, caplog):
    """Planted: a table that takes everything but ends; the image is restored once."""
    monkeypatch.setattr("service.jobs.runner.PAUSE_SECONDS", 0.3)
    table._connection.execute(
        "CREATE TRIGGER full BEFORE UPDATE OF ended ON items BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    id = service.enter(acquired(32)).json()["id"]
    began = service.desk._device.evaluations
    time.sleep(1.5)
    evaluations = service.desk._device.evaluations - began
    assert service.job(id)["state"] == "running" and 1 <= caplog.text.count("Traceback") <= 6
    table._connection.execute("DROP TRIGGER full")
    job = service.wait_for(id, "done")
    assert service.desk._device.evaluations - began == evaluations <= job["estimate"]["evaluations"]


def died(service, id):
    """The process is gone in the middle of an image: nobody writes what an end in order does."""
    table = service.jobs._table
    item = table.get(id).items[0]
    service.__exit__()
    table = Table(service.settings.jobs_dir / "jobs.db")
    table.begin(item)
    table.close()


def test_an_image_that_begins_while_the_service_stops_is_not_at_fault(residents, tmp_path, monkeypatch):  # noqa: F811
    """Planted: the device takes it after the table was told of the end, in more stops than are forgiven."""
    rest, late = Table.rest, []

    def interrupted(table):
        rest(table)
        while late:
            table.begin(late.pop())

    monkeypatch.setattr(Table, "rest", interrupted)
    folder = tmp_path / "jobs"
    with Service(residents, folder) as service:
        id = service.begun(acquired(96), **LONG)
    residents.failure = RegistryError("a registry", "none", "Start it.")  # it comes no further
    for _ in range(4):
        with Service(residents, folder) as service:
            assert service.job(id)["state"] == "queued"
            late.append(service.jobs._table.get(id).items[0])


def test_an_image_that_ends_every_process_is_given_up(residents, tmp_path):  # noqa: F811
    """After three without coming further, with its work; others go on, and ends in order do not count."""
    folder = tmp_path / "jobs"
    with Service(residents, folder) as service:
        deadly, other = service.begun(acquired(96), **LONG), service.enter(acquired(32)).json()["id"]
    for _ in range(5):
        with Service(residents, folder) as service:
            assert service.job(deadly)["state"] in ("queued", "running")
            service.wait_for(other, "done")
    residents.failure = RegistryError("a registry", "none", "Start it.")  # it comes no further
    for _ in range(3):
        service = Service(residents, folder).__enter__()
        assert service.job(deadly)["state"] == "queued"
        died(service, deadly)
    with Service(residents, folder) as service:
        job = service.job(deadly)
        assert job["state"] == "failed" and "ended 3 times" in job["images"][0]["error"]["actual"]
        assert not list(folder.rglob("work")) and service.job(other)["state"] == "done"
