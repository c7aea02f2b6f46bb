"""The table of jobs: what it says is what happened, whatever ended the process."""

import sqlite3
import time

import pytest

from service.jobs.table import NewItem, Request, Table

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
    assert table.get("b") is None and len(table.unfinished()) == 3
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
    assert [item.number for item in again.unfinished()] == [0, 2]


def test_images_wait_in_the_order_in_which_they_came(table):
    """Whoever they are of; an owner's are counted."""
    for id, owner in (("z", "ann"), ("a", "bob"), ("m", "ann")):
        entered(table, id, owner, items=ITEMS[:2])
    assert [(item.job, item.number) for item in table.unfinished()] == [
        (id, number) for id in "zam" for number in (0, 1)
    ]
    assert table.unfinished_of("ann") == 4
    assert [job.id for job in table.of_owner("ann", most=9)] == ["m", "z"]
    assert [job.id for job in table.of_owner("ann", most=1)] == ["m"]


def test_what_ended_long_ago_is_found_and_removed(table):
    """Not what has an image that has not ended, or has just."""
    for id in "abc":
        entered(table, id, items=ITEMS[:2])
    for id, number in (("a", 0), ("a", 1), ("b", 0)):
        table.end(table.get(id).items[number], "done")
    assert [job.id for job in table.ended_before(time.time() + 1)] == ["a"]
    assert table.ended_before(time.time() - 10) == []
    table.remove("a")
    assert table.ids() == {"b", "c"} and len(table.unfinished()) == 3


def test_the_jobs_of_an_earlier_release_are_taken_over(tmp_path):
    """Its table had a view without maps, and its requests said nothing of maps and memory."""
    table = Table(tmp_path / "jobs.db")
    table.add("a", "ann", REQUEST, ITEMS[:1], key=None, fingerprint="f")
    table.close()
    with sqlite3.connect(tmp_path / "jobs.db") as earlier:
        earlier.execute(
            "CREATE VIEW images AS SELECT items.*, owner, created AS entered FROM items JOIN jobs ON job = id"
        )
        earlier.execute("UPDATE jobs SET request = json_remove(request, '$.maps', '$.memory_bytes')")
    earlier.close()
    table = Table(tmp_path / "jobs.db")
    job = table.get("a")
    assert job.request == REQUEST and job.request.memory_bytes is None
    assert [item.maps for item in table.unfinished()] == [()]
    table.close()
