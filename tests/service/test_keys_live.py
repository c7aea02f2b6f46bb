"""Keys before a real BentoML process of their own: once they are asked for, they are for good."""

from __future__ import annotations

import io
import json
import re

import pytest
import tifffile
from service_world import START_SECONDS, TASK, Service, Store, acquired, answers, free_port, start

from flows.batch import errands_for
from flows.restore import Draws, restore_by_service
from service.client import Client, ServiceRefusal
from service.keys import Keys, Quota


@pytest.fixture
def closed(tmp_path, checkpoints):
    """A service that was started with keys, and these."""
    store, port, keys = Store(tmp_path), free_port(), Keys(tmp_path / "keys.db")
    store.register(checkpoints(seed=0), champion=True)
    keys.create("first")
    running = Service(f"http://127.0.0.1:{port}", store, tmp_path / "service.log")
    process = start(tmp_path, store, port, running.log)
    try:
        running.wait_for(lambda: answers(running), START_SECONDS)
        running.wait_for_champion(1)
        yield running, keys
    finally:
        process.terminate()
        process.wait(30)


def test_keys_close_every_door_but_the_open_ones(closed):
    """BentoML's own paths too; quotas hold for requests and jobs; calls and refusals are told."""
    service, keys = closed
    pixels = tifffile.imread(io.BytesIO(acquired(40)))
    secret, root = keys.create("ann", quota=Quota(requests_per_day=2)), keys.create("root", "operator")
    for path in ("/jobs", "/metrics", "/docs.json", "/schema.json", "/nowhere"):
        assert service.get(path).status_code == 401, path
    refused = service.reconstruct(acquired())
    assert refused.status_code == 401
    assert service.get("/readyz").status_code == service.get("/models").status_code == 200
    with Client(service.url, key=secret) as client:
        client.reconstruct(pixels, task=TASK, version=1)
        with pytest.raises(ServiceRefusal, match="2 images a day") as refusal:
            client.submit([pixels] * 2, task=TASK, version=1)
        assert refusal.value.status == 429 and client.jobs() == []
        job = client.submit([pixels], task=TASK, version=1, samples=2, steps=1)
        job.wait()
        made = service.get(f"/provenance/{job.id}", headers={"authorization": f"Bearer {secret}"}).json()
    entered, over, restored = [call for call in keys.calls() if call["method"] == "POST"]
    for call in (entered, restored):
        assert (call["name"], call["version"]) == ("ann", "1")
    assert (entered["path"], entered["status"], over["status"]) == ("/jobs", 202, 429)
    assert entered["input_sha256"] == made["images"][0]["input_sha256"]
    text = service.get("/metrics", headers={"authorization": f"Bearer {root}"}).text
    assert re.search(r'cvdm_failures_total{reason="UnauthorizedError"} 6', text)
    assert 'cvdm_http_answers_total{method="other",path="other",status="401"} 6' in text
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("request_id") == refused.headers["x-request-id"]]
    assert line["message"].startswith("refused at the door") and line["status"] == 401


def test_a_batch_without_a_key_is_refused_once(closed, tmp_path, monkeypatch):
    """Before any image is sent, and the refusal says where commands read the key."""
    service, keys = closed
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.tif").write_bytes(acquired(40))
    errands = errands_for([str(folder)], str(tmp_path / "out"))
    for key in ("", "wrong"):
        monkeypatch.setenv("CVDM_KEY", key)
        with pytest.raises(ServiceRefusal, match="CVDM_KEY"):
            restore_by_service(errands, service.url, TASK, "1", Draws())
    root = keys.create("root", "operator")
    text = service.get("/metrics", headers={"authorization": f"Bearer {root}"}).text
    assert re.search(r'cvdm_failures_total{reason="UnauthorizedError"} 2', text)
    monkeypatch.setenv("CVDM_KEY", keys.create("eve"))
    assert len(restore_by_service(errands, service.url, TASK, "1", Draws(samples=2, steps=1)).restored) == 2


def test_the_client_takes_its_key_from_the_environment(closed, monkeypatch):
    """As commands do; one that is given goes before it, an empty one is none."""
    service, keys = closed
    monkeypatch.setenv("CVDM_KEY", keys.create("ann") + "\n")
    other = keys.create("bea")
    for given, name in ((None, "ann"), (other, "bea")):
        with Client(service.url, key=given) as client:
            assert client.caller()["name"] == name
    with Client(service.url, key="") as client, pytest.raises(ServiceRefusal, match="got none"):
        client.caller()


def test_a_service_whose_keys_are_lost_is_not_open(closed):
    """Removed between its start and the first request that asks for a key."""
    service, keys = closed
    for file in keys.path.parent.glob("keys.db*"):
        file.unlink()
    reply = service.get("/jobs")
    assert reply.status_code == 503 and "Put it back" in reply.json()["remedy"]
