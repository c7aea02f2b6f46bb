"""The table of jobs: what it says is what happened, whatever ended the process."""

import sqlite3
import threading
import time
from datetime import datetime, timedelta

import pytest

from service.jobs.queue import Queue
from service.jobs.records import NewItem, Request
from service.jobs.table import Table
from service.jobs.telling import Telling

REQUEST = Request("cells", 3, "run", 8, 10, 0)
ITEMS = [NewItem(f"{n}.tif", "0" * 64, "YX", (64, 48), 20) for n in range(3)]


@pytest.fixture
def table(tmp_path):
    return Table(tmp_path / "jobs.db")


def entered(table, id="a", owner="ann", *, key=None, items=ITEMS):
    table.add(id, owner, REQUEST, items, key=key, fingerprint="f")
    return table.get(id)


def test_a_job_comes_back_as_it_was_entered(table, tmp_path):
    """From another process too."""
    job = entered(table, key="k")
    assert Table(tmp_path / "jobs.db").get("a") == job
    assert job.request == REQUEST and [item.name for item in job.items] == ["0.tif", "1.tif", "2.tif"]
    assert (job.state, job.ended, job.items[0].shape) == ("queued", None, (64, 48))
    assert table.known("ann", "k") == (job, "f") and table.known("bob", "k") is None


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ([None, None, None], "queued"),
        (["running", None, None], "running"),
        (["done", None, None], "running"),
        (["done", "done", "done"], "done"),
        (["done", "failed", "done"], "failed"),
        (["failed", "cancelled", "done"], "cancelled"),
    ],
)
def test_the_state_of_a_job_is_that_of_its_images(table, states, state):
    """Running from the first one's begin to the last one's end."""
    for item, into in zip(entered(table).items, states, strict=True):
        if into is not None:
            table.begin(item)
        if into not in (None, "running"):
            assert table.end(item, into, {"error": "E"} if into == "failed" else None)
    job = table.get("a")
    assert job.state == state
    assert (job.ended is None) == (state in ("queued", "running"))


def test_an_image_ends_once(table):
    """A cancel that comes after the end changes nothing, and says so."""
    item = entered(table).items[0]
    table.begin(item)
    assert table.end(item, "done") and not table.end(item, "cancelled")
    found = table.get("a").items[0]
    assert (found.state, found.done) == ("done", 20)
    table.begin(item)
    assert table.get("a").items[0].state == "done"


def test_a_key_stands_for_one_job_of_its_owner(table):
    """The second job of the same key is refused whole; another owner may use the key, and so may none."""
    entered(table, key="k")
    with pytest.raises(sqlite3.IntegrityError):
        entered(table, "b", key="k")
    assert table.get("b") is None and len(table.waiting()) == 3
    for id, owner, key in (("c", "bob", "k"), ("d", "ann", None), ("e", "ann", None)):
        assert entered(table, id, owner, key=key).id == id


def test_after_a_start_what_was_interrupted_waits_again(table, tmp_path):
    """With the progress and the time that it had."""
    first, second, _ = entered(table).items
    table.begin(first)
    table.report(first, 7, 1.5)
    table.begin(second)
    table.end(second, "done")
    again = Table(tmp_path / "jobs.db")
    assert again.requeue() == 1
    found = again.get("a").items[0]
    assert (found.state, found.done, found.seconds) == ("queued", 7, 1.5) and found.began is not None
    assert [image.number for image in again.waiting()] == [0, 2]


def test_who_had_the_device_at_an_end_is_noted_until_it_has_come_further(table, tmp_path):
    """Not an image that had made way, nor an end in order; three in a row are found."""
    first, second, _ = entered(table).items
    for done, orderly, found in (
        (3, False, 0),
        (2, False, 0),
        (5, False, 0),
        (4, True, 0),
        (5, False, 0),
        (1, False, 1),
    ):
        table.begin(second)
        table.begin(first)
        table.report(first, done, 1.0)
        if orderly:
            table.rest()
        table.close()
        table = Table(tmp_path / "jobs.db")
        assert table.requeue() == 2
        assert len(table.often_interrupted(3)) == found
    (item,) = table.often_interrupted(3)
    assert (item.number, item.state) == (0, "queued")


def test_images_wait_in_the_order_in_which_they_came(table):
    """Whoever they are of; an owner's are counted."""
    for id, owner in (("z", "ann"), ("a", "bob"), ("m", "ann")):
        entered(table, id, owner, items=ITEMS[:2])
    assert [(image.job, image.number) for image in table.waiting()] == [
        (id, number) for id in "zam" for number in (0, 1)
    ]
    assert table.unfinished_of("ann") == 4
    assert table.ids_of("ann", most=9) == ["m", "z"] and table.ids_of("ann", most=1) == ["m"]
    assert table.ids_of(None, most=9) == ["m", "a", "z"]
    first = [(item.job, item.number) for item in table.next_of_owners(3)]
    assert first == [("z", 0), ("z", 1), ("a", 0), ("a", 1), ("m", 0)]


def test_what_ended_long_ago_is_found_and_removed(table):
    """Not what has an image that has not ended, or has just."""
    for id in "abc":
        entered(table, id, items=ITEMS[:2])
    for id, number in (("a", 0), ("a", 1), ("b", 0)):
        table.end(table.get(id).items[number], "done")
    assert [job.id for job in table.ended_before(time.time() + 1)] == ["a"]
    assert table.ended_before(time.time() - 10) == []
    table.remove("a")
    assert table.ids() == {"b", "c"} and len(table.waiting()) == 3


@pytest.mark.parametrize(
    "found",
    [
        lambda table: table.get("a"),
        lambda table: table.known("ann", "key")[0],
        lambda table: table.ended_before(time.time() + 1)[0],
    ],
)
def test_a_job_that_is_removed_while_it_is_read_has_all_its_images(table, monkeypatch, found):
    """Planted: it is removed between the look at the job and the look at its images."""
    for item in entered(table, key="key").items:
        table.end(item, "done")
    remover, read = threading.Thread(target=table.remove, args=("a",)), table._read

    def and_removed(*asked):
        rows = read(*asked)
        if remover.ident is None:
            remover.start()
            remover.join(0.2)  # with time to do it, where nothing keeps it from doing so
        return rows

    monkeypatch.setattr(table, "_read", and_removed)
    job = found(table)
    assert len(job.items) == len(ITEMS) and job.state == "done"
    remover.join()
    assert table.get("a") is None


def test_the_jobs_of_an_earlier_release_are_taken_over(tmp_path):
    """Its table had a view without maps and no interruptions; requests said nothing of maps and memory."""
    table = Table(tmp_path / "jobs.db")
    table.add("a", "ann", REQUEST, ITEMS[:1], key=None, fingerprint="f")
    table.close()
    with sqlite3.connect(tmp_path / "jobs.db") as earlier:
        for column in ("at_device", "interruptions", "reached"):
            earlier.execute(f"ALTER TABLE items DROP COLUMN {column}")
        earlier.execute("PRAGMA user_version = 1")
        earlier.execute(
            "CREATE VIEW images AS SELECT items.*, owner, created AS entered FROM items JOIN jobs ON job = id"
        )
        earlier.execute("UPDATE jobs SET request = json_remove(request, '$.maps', '$.memory_bytes')")
    earlier.close()
    table = Table(tmp_path / "jobs.db")
    job = table.get("a")
    assert job.request == REQUEST and job.request.memory_bytes is None
    assert [item.maps for item in table.next_of_owners(9)] == [()]
    table.begin(job.items[0])
    assert table.requeue() == 1 and len(table.often_interrupted(1)) == 1
    table.close()


class Idle:
    """A runner that works on nothing; images take a second each at its pace."""

    kept_seconds = 3600.0

    def __init__(self, table):
        self._table = table

    def done(self, item):
        return item.done

    def queue(self):
        return Queue(self._table.waiting(), self.done)

    def seconds(self, job):
        return float(len(job.items))

    def waits_for(self, job):
        return None

    def seconds_left(self, job, queue):
        return queue.work_left(job.id) / job.items[0].work


def test_what_is_before_a_job_is_its_owners_share(table):
    """Of the images of all, and of the work of its owner; with two owners everything takes twice as long."""
    entered(table, "a", "ann", items=ITEMS[:2])
    entered(table, "b", "bob", items=ITEMS[:1])
    entered(table, "c", "ann", items=ITEMS)
    table.report(table.get("a").items[0], 10, 1.0)  # of 20
    work, queue = table.get("a").items[0].work, Idle(table).queue()
    assert [queue.images_ahead(id) for id in "abc"] == [0, 2, 3]
    assert [queue.work_left(id) / work for id in "abc"] == [2 * 1.5, 2 * 1, 2 * 4.5]
    assert queue.images_ahead("none") == queue.work_left("none") == 0


def test_the_list_of_jobs_stays_quick_however_much_waits(table):
    """Fifty batches of twenty images each; it took twenty seconds when each job looked at all of them."""
    for number in range(50):
        entered(table, f"j{number}", "ann", items=[NewItem("i.tif", "ab", "YX", (64, 48), 20)] * 20)
    telling = Telling(table, Idle(table))
    began = time.perf_counter()
    told = telling.jobs("ann")
    assert time.perf_counter() - began < 2
    assert [job["images_ahead"] for job in told] == list(range(980, -1, -20))


def test_a_list_tells_of_ended_jobs_what_they_are(table):
    """Each time the same, without one that was removed, and until when it is kept."""
    for id in "ab":
        entered(table, id)
    telling = Telling(table, Idle(table))
    assert {job["kept_until"] for job in telling.jobs("ann")} == {None}
    for item in table.get("a").items:
        table.end(item, "done")
    first, again = telling.jobs("ann"), telling.jobs("ann")
    assert first == again and [job["state"] for job in again] == ["queued", "done"]
    assert again[1] == telling.job(table.get("a"))
    ended, kept = (datetime.fromisoformat(again[1][name]) for name in ("ended", "kept_until"))
    assert kept - ended == timedelta(hours=1)
    table.remove("a")
    assert [job["id"] for job in telling.jobs("ann")] == ["b"]
