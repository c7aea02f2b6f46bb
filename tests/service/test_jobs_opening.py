"""A folder of jobs that cannot be opened: clients learn why, and it is opened when it can be."""

import asyncio
from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from service.device import Device
from service.errors import JobsError
from service.jobs import opening
from service.jobs.archive import Archive
from service.jobs.desk import open_jobs
from service.jobs.opening import opened
from service.metrics import Metrics
from service.settings import Settings


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "jobs"


def opener(folder):
    settings = Settings(tracking_uri="sqlite:////none.db", jobs_dir=folder)
    metrics = Metrics(CollectorRegistry())
    return partial(open_jobs, folder, settings, None, Device(max_waiting=3), metrics)


def damaged_table(folder):
    folder.mkdir()
    (folder / "jobs.db").write_bytes(b"no database " * 999)
    return (folder / "jobs.db").unlink


def a_file_in_its_place(folder):
    folder.write_bytes(b"")
    return folder.unlink


def another_service(folder):
    return Archive(folder).close


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (damaged_table, "DatabaseError: file is not a database"),
        (a_file_in_its_place, "NotADirectoryError"),
        (another_service, "another service uses"),
    ],
)
def test_clients_are_told_why_there_are_no_jobs_until_there_are(folder, plant, said, monkeypatch):
    """Whatever is the matter with the folder; mended it is opened, and its own lock is not in the way."""
    monkeypatch.setattr(opening, "PAUSE_SECONDS", 0.01)
    mend, told = plant(folder), []

    async def scenario():
        waiting = asyncio.create_task(opened(opener(folder), folder, told.append))
        while len(told) < 3:
            assert not waiting.done()
            await asyncio.sleep(0.01)
        mend()
        jobs = await asyncio.wait_for(waiting, 30)
        assert sum(jobs.counts().values()) == 0
        await jobs.close()

    asyncio.run(scenario())
    assert all(isinstance(reason, JobsError) for reason in told)
    assert "being opened" in told[0].actual and all(said in reason.actual for reason in told[1:])
