"""Keys: shown once, stored as hashes, bounded, revoked; and the door that asks for them."""

import asyncio
import sqlite3
import stat
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from service.doorkeeper import Caller, Doorkeeper, caller_of, made_of
from service.errors import KeysError, QuotaError
from service.keys import Call, Keys, Quota
from service.metrics import Metrics
from service.routes import build_app


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path / "keys.db")


@pytest.fixture
def refused():
    """What was refused at the door."""
    return []


@pytest.fixture
def door(keys, monkeypatch, refused):
    """An application behind the door; who asks says so."""
    monkeypatch.setenv("CVDM_TRACKING_URI", "sqlite:////none.db")
    monkeypatch.setenv("CVDM_KEYS_FILE", str(keys.path))

    def told(request):
        caller = caller_of(request.scope)
        headers = {"x-request-id": "7", "x-cvdm-version": "3", "x-cvdm-input-sha256": "ab"}
        return JSONResponse({"name": caller.name, "operator": caller.is_operator}, headers=headers)

    def entered(request):
        made = made_of(request.scope)
        made.version, made.digests = 5, ["cd", "ef"]
        return JSONResponse({})

    paths = ("/jobs", "/metrics", "/livez", "/models")
    routes = [Route(path, told) for path in paths]
    routes += [Route("/reconstruct", told, methods=["POST"]), Route("/jobs", entered, methods=["POST"])]
    app = Doorkeeper(Starlette(routes=routes), lambda error, seconds: refused.append(type(error).__name__))

    def client(host="127.0.0.1"):
        return TestClient(app, base_url="http://localhost", client=(host, 5))

    return client


def test_a_key_is_shown_once_and_stored_as_its_hash(keys):
    """The file has neither the key nor a part of it, and nobody else may read the file."""
    secret = keys.create("ann", quota=Quota(pixels_per_day=5))
    assert len(secret) > 40
    content = b"".join(file.read_bytes() for file in keys.path.parent.iterdir())
    assert secret.encode() not in content and secret[5:20].encode() not in content
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    found = keys.who(secret)
    assert (found.name, found.role, found.quota) == ("ann", "user", Quota(pixels_per_day=5))
    assert keys.who(secret[:-1]) is None and keys.who("") is None
    assert secret not in str([key.as_json() for key in keys.listed()])


def test_a_revoked_key_opens_nothing_and_its_name_stays_taken(keys):
    """Jobs and calls of a name are always the same one's."""
    secret = keys.create("ann")
    assert keys.revoke("ann").revoked is not None and keys.who(secret) is None
    first = keys.listed()[0].revoked
    assert keys.revoke("ann").revoked == first
    with pytest.raises(KeysError, match="a new name"):
        keys.create("ann")
    with pytest.raises(KeysError, match="ann"):
        keys.revoke("bob")
    assert keys.wanted


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 65, "'; --"])
def test_names_are_plain(keys, name):
    """They stand in tables, logs and headers."""
    with pytest.raises(KeysError, match="a name of letters"):
        keys.create(name)


def test_a_day_has_a_bound_and_what_is_refused_does_not_count(keys):
    """Of images and of pixels, each key by itself; the time to wait ends with the day."""
    ann = keys.who(keys.create("ann", quota=Quota(requests_per_day=3, pixels_per_day=100)))
    bob = keys.who(keys.create("bob"))
    keys.spend(ann, images=2, pixels=60)
    with pytest.raises(QuotaError, match="100 pixels a day") as refused:
        keys.spend(ann, images=1, pixels=41)
    assert 0 < refused.value.retry_after <= 86400
    with pytest.raises(QuotaError, match="3 images a day"):
        keys.spend(ann, images=2, pixels=1)
    keys.spend(ann, images=1, pixels=40)
    keys.spend(bob, images=1000, pixels=10**12)


@pytest.mark.parametrize("refused", [QuotaError("3 waiting", "3", "Wait."), sqlite3.IntegrityError("known")])
def test_what_is_refused_after_it_was_counted_does_not_count(keys, refused):
    """Neither does a job that is known already; a client that goes away while the device works has had it."""
    ann = Caller(keys.who(keys.create("ann", quota=Quota(requests_per_day=2, pixels_per_day=10))), keys)

    async def spend(error):
        async with ann.spending(images=2, pixels=10):
            if error is not None:
                raise error

    with pytest.raises(type(refused)):
        asyncio.run(spend(refused))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(spend(asyncio.CancelledError()))
    with pytest.raises(QuotaError, match="2 images a day"):
        asyncio.run(spend(None))


def test_the_calls_are_the_newest_ones(keys, monkeypatch):
    """Planted: three are kept; readers wait for nobody who writes."""
    monkeypatch.setattr("service.keys.MOST_CALLS", 3)
    secret = keys.create("ann")
    for number in range(5):
        keys.log(Call("ann", None, "GET", f"/{number}", 200, None, None))
    assert [call["path"] for call in keys.calls()] == ["/4", "/3", "/2"]
    with keys._open():
        assert keys.who(secret).name == "ann"


def test_two_at_a_time_never_exceed_the_bound(keys):
    """Planted: twenty threads for ten images."""
    ann = keys.who(keys.create("ann", quota=Quota(requests_per_day=10)))
    refused = []

    def spend():
        try:
            keys.spend(ann, images=1, pixels=1)
        except QuotaError:
            refused.append(1)

    threads = [threading.Thread(target=spend) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 10


def test_without_a_key_only_this_machine_is_answered(door):
    """Whoever comes from elsewhere learns what to do."""
    assert door().get("/jobs").json() == {"name": "everybody", "operator": False}
    for host in ("10.0.0.7", "2001:db8::1", "nonsense"):
        reply = door(host).get("/jobs")
        assert reply.status_code == 401 and "cvdm keys create" in reply.json()["remedy"]
    assert door("::1").get("/jobs").status_code == 200


def test_with_a_key_everybody_needs_one(door, keys):
    """From this machine too, at once, on every path that is not open; a revoked one is none."""
    secret = keys.create("ann")
    keys.create("bob")
    header = {"authorization": f"Bearer {secret}"}
    for host in ("127.0.0.1", "10.0.0.7"):
        client = door(host)
        for wrong in ({}, {"authorization": "Bearer x"}, {"authorization": f"Basic {secret}"}):
            reply = client.get("/jobs", headers=wrong)
            assert reply.status_code == 401 and reply.headers["www-authenticate"] == "Bearer"
        assert client.get("/jobs", headers=header).json()["name"] == "ann"
        assert client.get("/livez").status_code == client.get("/models").status_code == 200
        assert client.get("/nowhere").status_code == 401
    keys.revoke("ann")
    assert door().get("/jobs", headers=header).status_code == 401


def test_revoking_the_last_key_opens_nothing(door, keys):
    """Who once asked for keys goes on to; there are no others until one is made."""
    keys.create("ann")
    keys.revoke("ann")
    assert door().get("/jobs").status_code == 401


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x" * 99)]
)
def test_a_file_of_keys_that_is_lost_opens_nothing(door, keys, damage):
    """Removed, emptied or damaged while the service runs: refused, with what to do."""
    secret = keys.create("ann")
    client = door()
    assert client.get("/jobs").status_code == 401
    for file in keys.path.parent.glob("keys.db-*"):
        file.unlink()
    damage(keys.path)
    for headers in ({}, {"authorization": f"Bearer {secret}"}):
        reply = client.get("/jobs", headers=headers)
        assert reply.status_code == 503 and "Put it back" in reply.json()["remedy"]
    assert client.get("/livez").status_code == 200


def test_metrics_are_for_operators(door, keys):
    """403 for users."""
    user, operator = keys.create("ann"), keys.create("root", "operator")
    assert door().get("/metrics", headers={"authorization": f"Bearer {user}"}).status_code == 403
    reply = door().get("/metrics", headers={"authorization": f"Bearer {operator}"})
    assert reply.json() == {"name": "root", "operator": True}


def test_calls_are_kept(door, keys):
    """Who, what, which version, which input; what was refused at the door is nobody's call."""
    secret = keys.create("ann")
    door().post("/reconstruct", headers={"authorization": f"Bearer {secret}"})
    door().post("/reconstruct")
    (call,) = keys.calls()
    assert (call["name"], call["method"], call["path"], call["status"]) == (
        "ann",
        "POST",
        "/reconstruct",
        200,
    )
    assert (call["request_id"], call["version"], call["input_sha256"]) == ("7", "3", "ab")
    assert secret not in str(call)


def test_what_an_endpoint_notes_is_kept(door, keys):
    """The version of a job that is accepted, and the checksum of each of its images."""
    header = {"authorization": f"Bearer {keys.create('ann')}"}
    door().post("/jobs", headers=header)
    (call,) = keys.calls()
    assert (call["version"], call["input_sha256"]) == ("5", "cd ef")


def test_looks_are_no_calls_and_paths_are_cut(door, keys):
    """Polls, events, tiles and views would fill the log within days; results are who had what."""
    header = {"authorization": f"Bearer {keys.create('ann')}"}
    for path in ("", "/k", "/k/events", "/k/images/0/view", "/k/images/0/tile", "/k/images/0/preview.png"):
        door().get(f"/jobs{path}", headers=header)
    assert keys.calls() == []
    kept = ["/jobs/k/result", "/jobs/k/images/0/result", "/" + "x" * 199]
    for path in [*kept[:2], "/" + "x" * 5000]:
        door().get(path, headers=header)
    assert [call["path"] for call in keys.calls()] == kept[::-1]


def test_what_is_refused_at_the_door_has_an_id_a_line_and_a_count(door, keys, refused, caplog):
    """As what is refused inside; the line names no path, which is whatever a stranger writes."""
    user = keys.create("ann")
    for path, headers in (("/jobs", {}), ("/metrics", {"authorization": f"Bearer {user}"}), ("/a%0Ab", {})):
        with caplog.at_level("INFO", logger="service"):
            reply = door().get(path, headers=headers)
        assert reply.headers["x-request-id"] == reply.json()["request_id"]
        assert caplog.records[-1].facts["status"] == reply.status_code
        assert path not in caplog.records[-1].getMessage()
    assert refused == ["UnauthorizedError", "ForbiddenError", "UnknownPathError"]


def test_the_page_is_for_everybody_and_nothing_else_is(door, keys):
    """Its files tell nothing of anybody; a path that only begins like it is not it."""
    keys.create("ann")
    client = door("10.0.0.7")
    assert client.get("/ui/").status_code == client.get("/ui/app.js").status_code == 404  # past the door
    for path in ("/uisession", "/session", "/ui-jobs", "/jobs"):
        assert client.get(path).status_code == 401


def test_a_browser_keeps_the_key_where_no_script_reads_it(keys, monkeypatch):
    """A cookie that is not sent from other sites; it opens what the key does, until one is dropped."""
    monkeypatch.setenv("CVDM_TRACKING_URI", "sqlite:////none.db")
    monkeypatch.setenv("CVDM_KEYS_FILE", str(keys.path))
    app = build_app()
    app.state.desk = SimpleNamespace(metrics=Metrics(CollectorRegistry()))
    client = TestClient(
        Doorkeeper(app, lambda error, seconds: None), base_url="https://cvdm.example", client=("10.0.0.7", 5)
    )
    secret = keys.create("ann")
    assert client.get("/session").status_code == 401
    assert client.post("/session", headers={"authorization": "Bearer wrong"}).status_code == 401
    reply = client.post("/session", headers={"authorization": f"Bearer {secret}"})
    assert reply.json() == {"name": "ann", "role": "user", "open": False}
    cookie = reply.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "secure"))
    assert client.get("/session").json()["name"] == "ann"
    assert client.get("/session", headers={"authorization": "Bearer wrong"}).status_code == 401
    client.delete("/session")
    assert client.get("/session").status_code == 401
    client.cookies.set("cvdm_key", secret)
    assert client.get("/session").status_code == 200
    keys.revoke("ann")
    keys.create("bob")
    assert client.get("/session").status_code == 401


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:9", "https://localhost.evil"]
)
def test_another_sites_page_changes_nothing(door, origin):
    """A browser says from where it asks; programs say nothing, and the service's own page is welcome."""
    client = door()
    assert client.post("/jobs", headers={"origin": origin}).status_code == 403
    assert client.delete("/jobs", headers={"origin": origin}).status_code == 403
    assert client.get("/jobs", headers={"origin": origin}).status_code == 200  # whose answer it may not read
    for own in ({}, {"origin": "http://localhost"}):
        assert client.delete("/jobs", headers=own).status_code == 405  # past the door


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:3000", 200), ("127.0.0.1", 200), ("[::1]:3000", 200), ("evil.example", 403), ("", 403)],
)
def test_a_service_without_keys_answers_to_its_own_names_only(door, host, status):
    """A site that points its name at this machine is not this machine."""
    assert door().get("/jobs", headers={"host": host}).status_code == status
