"""Jobs of a real service process that is killed again and again."""

import random
import time
from functools import partial

import httpx
import psutil
import pytest
from service_world import START_SECONDS, Service, Store, acquired, free_port, start

KILLS = 5


@pytest.mark.slow
def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path, checkpoints):
    """Killed at random moments with queued and running jobs: each is done once, to the undisturbed bytes."""
    store, rng, ids = Store(tmp_path), random.Random(7), {}
    store.register(checkpoints(seed=0), champion=True)
    orders = [
        (acquired(200), {"samples": 16, "steps": 20}),
        *((acquired(40 + n), {"seed": n}) for n in range(9)),
    ]
    for kill in range(KILLS + 1):
        service = Service(f"http://127.0.0.1:{free_port()}", store, tmp_path / f"service{kill}.log")
        process = start(tmp_path, store, int(service.url.rsplit(":", 1)[1]), service.log)
        try:
            service.wait_for(partial(ready, service), START_SECONDS)
            for number, (image, fields) in enumerate(orders):
                ids.setdefault(number, enter(service, image, fields, number))
                assert enter(service, image, fields, number) == ids[number]
            if kill < KILLS:
                time.sleep(rng.uniform(0, 3))
                continue
            service.wait_for(partial(all_done, service, ids.values()), 120)
            assert len(service.get("/jobs").json()["jobs"]) == len(orders)
            for number, (image, fields) in enumerate(orders):
                result = service.get(f"/jobs/{ids[number]}/result").content
                assert result == service.reconstruct(image, **fields).content
        finally:
            tree = [process, *psutil.Process(process.pid).children(recursive=True)]
            for one in tree if kill % 2 else tree[:1]:  # a worker without its parent ends by itself
                one.kill()
            process.wait()


def ready(service):
    try:
        return all(
            httpx.get(f"{service.url}/{path}", timeout=2).status_code == 200 for path in ("readyz", "jobs")
        )
    except httpx.TransportError:
        return False


def enter(service, image, fields, number):
    reply = httpx.post(
        f"{service.url}/jobs",
        files={"image": (f"{number}.tif", image)},
        data={name: str(value) for name, value in fields.items()},
        headers={"idempotency-key": str(number)},
        timeout=30,
    )
    assert reply.status_code in (200, 202), reply.text
    return reply.json()["id"]


def all_done(service, ids):
    return all(service.get(f"/jobs/{id}").json()["state"] == "done" for id in ids)
