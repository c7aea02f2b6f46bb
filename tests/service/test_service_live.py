"""The service as a real BentoML process with a real registry."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest
import tifffile
from service_world import TASK, acquired, corrupt_golden, tiff_bytes

from cvdm.errors import ImageError
from cvdm.images import read_annotations
from flows.batch import errands_for
from flows.restore import Draws, restore_by_service
from service.client import Client, ServiceRefusal
from service.doorkeeper import EVERYBODY

LONG = {"samples": 64, "steps": 200}
"""A request that takes far longer than a test waits; its image is `acquired(256)`."""


def test_before_a_champion_the_service_lives_but_is_not_ready(service):
    """Without a model: /livez 200, /readyz 503, /models empty, /reconstruct 503 with a remedy."""
    assert service.before["/livez"].status_code == 200
    assert service.before["/readyz"].status_code == 503
    assert service.before["/models"].json()["models"] == []
    refusal = service.before["/reconstruct"]
    assert refusal.status_code == 503 and refusal.headers["retry-after"]
    assert refusal.json()["error"] == "NoModelError"
    assert "cvdm retrain" in refusal.json()["remedy"]


def test_with_a_champion_the_service_is_ready_and_says_with_which(service):
    """/readyz is 200 and /models tells task, version, run, aliases, data digest, verified, loaded."""
    assert service.get("/readyz").status_code == 200
    entry = service.models()[1]
    assert (entry["task"], entry["verified"], entry["loaded"], entry["reason"]) == (TASK, True, True, None)
    assert entry["dataset_digest"] == "d" * 64 and len(entry["run_id"]) == 32


def test_an_image_comes_back_restored_and_traceable(service):
    """float32 OME-TIFF with four channels, the input's pixel size, and its origin in headers and metadata."""
    metadata = {"PhysicalSizeX": 0.0313, "PhysicalSizeY": 0.0313}
    pixels = tifffile.imread(io.BytesIO(acquired(48))).astype(np.uint16)
    reply = service.reconstruct(tiff_bytes(pixels, ome=True, metadata=metadata), seed=3)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "image/tiff"
    with tifffile.TiffFile(io.BytesIO(reply.content)) as tif:
        assert tif.series[0].shape == (4, 48, 48) and tif.series[0].dtype == np.float32
        for name in ("reconstruction", "uncertainty_std", "lower", "upper"):
            assert f'Name="{name}"' in tif.ome_metadata
        assert 'PhysicalSizeX="0.0313"' in tif.ome_metadata
    told = read_annotations(io.BytesIO(reply.content))
    assert told["dataset_digest"] == reply.headers["x-cvdm-dataset-digest"] == "d" * 64
    assert (
        told["run_id"] == reply.headers["x-cvdm-run-id"] == service.models()[int(told["version"])]["run_id"]
    )
    assert told["seed"] == reply.headers["x-cvdm-seed"] == "3"
    assert told["model"] == reply.headers["x-cvdm-model"] == f"cvdm-{TASK}"
    assert len(told["input_sha256"]) == 64 and told["git_commit"] == "0" * 40


def test_the_same_request_gives_the_same_pixels(service):
    """Without a seed too; another seed gives others."""
    first, again, other = (
        service.reconstruct(acquired(), version=1, **seed) for seed in ({}, {}, {"seed": 9})
    )
    assert first.content == again.content
    assert (tifffile.imread(io.BytesIO(first.content)) != tifffile.imread(io.BytesIO(other.content))).any()


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"task": "nothing-like-it"}, 404, "UnknownTaskError"),
        ({"version": "4711"}, 404, "UnknownVersionError"),
        ({"version": "newest"}, 422, "ParameterError"),
        ({"samples": "1"}, 422, "ParameterError"),
        ({"steps": "many"}, 422, "ParameterError"),
        ({"seed": "-3"}, 422, "ParameterError"),
        ({"colour": "red"}, 422, "ParameterError"),
        ({"task": "x" * 5000}, 400, "BodyError"),
    ],
)
def test_wrong_fields_are_refused(service, fields, status, error):
    """Each with its status and the four parts of a message."""
    assert_refusal(service.reconstruct(acquired(), **fields), status, error)


RESTORABLE = {
    "allzero_uint16.tif",
    "bigendian_uint16.tif",
    "bigtiff_uint16.tif",
    "biosr_microtubules_uint16.mrc",
    "bool_1bit.tif",
    "float64_01range.tif",
    "int16_negative_background.tif",
    "miniswhite_uint8.tif",
    "nonsquare_odd_imagej_uint8.tif",
    "saturated_uint8.tif",
    "tiny_31x17_uint16.tif",
}


def test_odd_files_are_restored_or_refused_but_never_break(service, odd_files):
    """Unreadable, stacked, coloured and non-finite files get 422; odd but sound ones are restored."""
    assert len(odd_files) >= 20
    for path in odd_files:
        reply = service.reconstruct(path.read_bytes())
        if path.name in RESTORABLE:
            assert reply.status_code == 200, (path.name, reply.text)
            assert np.isfinite(tifffile.imread(io.BytesIO(reply.content))).all(), path.name
        else:
            assert reply.status_code == 422 and reply.json()["error"] in ("ImageError", "ExtentError"), (
                path.name
            )
    assert service.get("/readyz").status_code == 200


def test_bodies_that_are_no_form_are_refused(service):
    """Empty body, other media type, broken form, no file, text instead of a file, two files."""
    url, image = f"{service.url}/reconstruct", acquired()
    form = {"content-type": "multipart/form-data; boundary=B"}
    assert_refusal(httpx.post(url), 415, "MediaTypeError")
    assert_refusal(
        httpx.post(url, content=image, headers={"content-type": "image/tiff"}), 415, "MediaTypeError"
    )
    assert_refusal(httpx.post(url, content=b"nonsense", headers=form), 400, "BodyError")
    assert_refusal(httpx.post(url, content=b"--B--\r\n", headers=form), 422, "ParameterError")
    assert_refusal(httpx.post(url, files={"picture": image}), 422, "ParameterError")
    reply = httpx.post(url, data={"image": "text"}, files={"x": b""})
    assert assert_refusal(reply, 422, "ParameterError").json()["actual"] == "only 'image', 'x'"
    assert_refusal(httpx.post(url, files=[("image", image), ("image", image)]), 400, "BodyError")
    assert_refusal(httpx.post(url, files={"image": b""}), 422, "ImageError")
    assert_refusal(httpx.get(url), 405, "HTTPError")
    assert_refusal(httpx.request("ODD", url), 405, "HTTPError")
    answers = 'cvdm_http_answers_total{method="other",path="/reconstruct",status="405"} 2.0'
    assert answers in service.get("/metrics").text


def test_what_is_too_large_is_refused_before_it_is_decoded(service):
    """413 from the declared length, 413 when an undeclared length grows too far, 422 for too many pixels."""
    large = b"\0" * 2**21
    assert_refusal(service.reconstruct(large), 413, "UploadTooLargeError")

    def undeclared():
        yield b'--B\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(32):
            yield b"\0" * 2**16

    headers = {"content-type": "multipart/form-data; boundary=B"}
    reply = httpx.post(f"{service.url}/reconstruct", content=undeclared(), headers=headers)
    assert_refusal(reply, 413, "UploadTooLargeError")
    bomb = tiff_bytes(np.zeros((4096, 4096), np.uint8), compression="zlib")
    assert "POST /jobs" in assert_refusal(service.reconstruct(bomb), 422, "ExtentError").json()["remedy"]
    colour = tiff_bytes(np.zeros((40, 40, 3), np.uint8), photometric="rgb")
    assert "/jobs" not in assert_refusal(service.reconstruct(colour), 422, "ImageError").json()["remedy"]
    stack = tiff_bytes(np.zeros((3, 40, 40), np.uint8), imagej=True, metadata={"axes": "ZYX"})
    assert "POST /jobs" in assert_refusal(service.reconstruct(stack), 422, "ExtentError").json()["remedy"]


def test_health_answers_while_the_device_works_and_the_queue_is_bounded(service):
    """Under a long reconstruction /livez and /models take < 1 s; one request too many is told when to return;
    clients that give up free the device at once."""
    clients = [Waiting(service) for _ in range(9)]  # one runs, eight wait
    refused = service.wait_for(
        lambda: reply if (reply := service.reconstruct(b"")).status_code == 503 else None
    )
    assert_refusal(refused, 503, "BusyError")
    assert int(refused.headers["retry-after"]) >= 1
    for path in ("/livez", "/readyz", "/models", "/metrics"):
        started = time.monotonic()
        assert service.get(path).status_code == 200
        assert time.monotonic() - started < 1, path
    for client in clients:
        client.give_up()
    service.wait_for(lambda: service.reconstruct(acquired(32)).status_code == 200, 10)


def test_a_new_champion_takes_over_without_a_failed_request(service, checkpoints):
    """Under a stream of requests every answer is 200, first from the old version and then from the new."""
    number = service.store.register(checkpoints(seed=1))
    stop, replies = threading.Event(), []

    def stream():
        with httpx.Client(timeout=60) as client:
            while not stop.is_set():
                replies.append(client.post(f"{service.url}/reconstruct", files={"image": acquired(32)}))

    with ThreadPoolExecutor(3) as pool:
        streams = [pool.submit(stream) for _ in range(3)]
        try:
            service.wait_for(lambda: len(replies) > 5)
            service.store.promote(number)
            service.wait_for_champion(number)
            before = len(replies)
            service.wait_for(lambda: len(replies) > before + 8)
        finally:
            stop.set()
        for future in streams:
            future.result()
    assert {reply.status_code for reply in replies} == {200}
    versions = [int(reply.headers["x-cvdm-version"]) for reply in replies]
    assert versions[0] != number and versions[-1] == number and len(set(versions)) == 2
    assert service.reconstruct(acquired(32), version=1).headers["x-cvdm-version"] == "1"


def test_a_corrupt_candidate_never_serves(service, checkpoints):
    """Its alias moves, the old champion answers on, and /models tells the reason."""
    good = next(number for number, entry in service.models().items() if entry["serving"])
    bad_directory = checkpoints(seed=2)
    corrupt_golden(bad_directory)
    bad = service.store.register(bad_directory, champion=True)
    try:
        service.wait_for(lambda: service.models().get(bad, {}).get("reason") is not None)
        entry = service.models()[bad]
        assert (
            "golden" in entry["reason"]["expected"]
            and not entry["verified"]
            and "champion" in entry["aliases"]
        )
        assert service.reconstruct(acquired(32)).headers["x-cvdm-version"] == str(good)
        assert service.get("/readyz").status_code == 200
        assert_refusal(service.reconstruct(acquired(32), version=bad), 503, "CheckpointError")
    finally:
        service.store.promote(good)


def test_an_unreachable_registry_is_told_and_does_not_stop_service(service):
    """The loaded champion answers on; /models says what is wrong; recovery is noticed."""
    away = service.store.database.with_suffix(".away")
    service.store.database.rename(away)
    try:
        service.wait_for(lambda: not service.get("/models").json()["registry"]["reachable"])
        assert "CVDM_TRACKING_URI" in service.get("/models").json()["registry"]["error"]["expected"]
        assert service.reconstruct(acquired(32)).status_code == 200
        assert service.get("/readyz").status_code == 200
    finally:
        away.rename(service.store.database)
    service.wait_for(lambda: service.get("/models").json()["registry"]["reachable"])


def test_the_client_asks_for_arrays_and_for_jobs(service, tmp_path):
    """An array in one request, two files as a job: the same pixels, with names and provenance."""
    pixels = tifffile.imread(io.BytesIO(acquired(50)))
    files = [tmp_path / f"{n}.tif" for n in range(2)]
    for file in files:
        file.write_bytes(acquired(50))
    told = []
    with Client(service.url) as client:
        restored = client.reconstruct(pixels, task=TASK, version=1, seed=4)
        assert list(restored.channels) == ["reconstruction", "uncertainty_std", "lower", "upper"]
        assert restored.provenance["version"] == "1" and restored.channels["lower"].shape == (50, 50)
        job = client.submit(files, key="of the client", task=TASK, version=1, seed=4)
        assert (
            client.submit([str(f) for f in files], key="of the client", task=TASK, version=1, seed=4) == job
        )
        ended = job.wait(told.append)
        assert ended["state"] == "done" == told[-1]["state"]
        job.save(1, tmp_path / "out.ome.tif")
        assert (tifffile.imread(tmp_path / "out.ome.tif")[0] == restored.channels["reconstruction"]).all()
        assert job.id in [one["id"] for one in client.jobs()]
        job.remove()
        with pytest.raises(ServiceRefusal) as refused:
            job.describe()
        assert refused.value.status == 404
        with pytest.raises(ServiceRefusal, match="one of the tasks"):
            client.reconstruct(pixels, task="other")
        with pytest.raises(ImageError, match="one plane"):
            client.reconstruct(np.zeros((2, 8, 8)))


def test_the_client_takes_and_gives_stacks(service):
    """An array in whatever order of axes comes back plane by plane, each as if sent alone with its seed."""
    planes = np.stack([tifffile.imread(io.BytesIO(acquired(40, seed=n))) for n in range(6)])
    stack = planes.reshape(2, 3, 40, 40)  # C, Z
    with Client(service.url) as client:
        job = client.submit([np.moveaxis(stack, 0, -1)], axes="ZYXC", task=TASK, version=1, seed=4)
        assert job.wait()["images"][0]["axes"] == "CZYX"
        restored = job.load(0)
        alone = client.reconstruct(stack[1, 2], task=TASK, version=1, seed=4 + 5)
        assert restored.provenance["seed"] == "4"
        for name in ("reconstruction", "upper"):
            found = restored.channels[f"channel 1 {name}"]
            assert found.shape == (3, 40, 40)
            np.testing.assert_array_equal(found[2], alone.channels[name])
        for axes in (None, "ZY", "ZYQ", "ZZX"):
            with pytest.raises(ImageError, match="axes"):
                client.submit([planes], axes=axes)


def test_a_folder_is_restored_by_the_service(service, tmp_path, capsys):
    """As jobs; the same command again asks for nothing twice."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for n in range(5):
        (folder / f"{n}.tif").write_bytes(acquired(40 + n, seed=n))
    (folder / "bad.tif").write_bytes(b"no image")
    with Client(service.url) as client:
        before = len(client.jobs())
        for _ in range(2):
            errands = errands_for([str(folder)], str(out))
            outcome = restore_by_service(errands, service.url, TASK, "1", Draws(seed=2))
            assert len(outcome.restored) == 5 and list(outcome.failed) == [folder / "bad.tif"]
            assert len(client.jobs()) == before + 5
    assert sorted(file.name for file in out.iterdir()) == [f"{n}.ome.tif" for n in range(5)]
    answer = service.reconstruct((folder / "3.tif").read_bytes(), task=TASK, version=1, seed=2)
    assert (out / "3.ome.tif").read_bytes() == answer.content


def test_metrics_show_what_was_done(service):
    """Every counter after a restored and a refused request; ids and paths that are tried are no labels."""
    service.reconstruct(acquired(32))
    service.reconstruct(b"no image")
    service.get("/jobs/some-id")
    service.get("/nowhere-else")
    done = re.compile(r"^cvdm_evaluations_total [1-9]", re.MULTILINE)
    text = service.wait_for(lambda: (text := service.get("/metrics").text) and done.search(text) and text)
    for sample in (
        f'cvdm_reconstructions_total{{task="{TASK}",version="1"}}',
        'cvdm_failures_total{reason="ImageError"}',
        f'cvdm_swaps_total{{task="{TASK}"}}',
        f'cvdm_model_version{{task="{TASK}"}}',
        f'cvdm_reconstruction_seconds_count{{task="{TASK}"}}',
        "cvdm_requests",
        "cvdm_models",
        'cvdm_jobs{state="done"}',
        'cvdm_memory_bytes{of="process"}',
        'cvdm_http_answers_total{method="POST",path="/reconstruct",status="422"}',
        'cvdm_http_answers_total{method="GET",path="/jobs/{id}",status="404"}',
        'cvdm_http_answers_total{method="other",path="other",status="404"}',
    ):
        assert sample in text, text
    assert "some-id" not in text and "nowhere" not in text


def test_the_log_holds_no_image_name_and_no_traceback(service):
    """Refusals and answers are one JSON object each, by the request's id; what a client sent stays out."""
    id = service.reconstruct(b"no image at all").headers["x-request-id"]
    job = httpx.post(f"{service.url}/jobs", files={"image": ("jane-doe.tif", b"no image at all")})
    assert job.status_code == 422 and "jane-doe.tif" in job.json()["actual"]
    log = service.log.read_text()
    assert "in.tif" not in log and "jane-doe" not in log and "Traceback" not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    refused, answered = [line for line in lines if line.get("request_id") == id]
    assert refused["message"].startswith("refused: Expected") and refused["level"] == "info"
    assert answered["message"] == "answered" and answered["seconds"] > 0
    facts = [answered[name] for name in ("method", "path", "status", "who")]
    assert facts == ["POST", "/reconstruct", 422, EVERYBODY]


class Waiting:
    """A client that asked for something long and can hang up."""

    def __init__(self, service):
        data = {name: str(value) for name, value in LONG.items()}
        request = httpx.Request(
            "POST", f"{service.url}/reconstruct", files={"image": acquired(256)}, data=data
        )
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        head = "\r\n".join(["POST /reconstruct HTTP/1.1", *lines, "", ""])
        self._socket = socket.create_connection(("127.0.0.1", httpx.URL(service.url).port))
        self._socket.sendall(head.encode() + request.read())

    def give_up(self):
        self._socket.close()


def assert_refusal(reply, status, error):
    assert reply.status_code == status, reply.text[:500]
    content = reply.json()
    assert content["error"] == error
    assert all(content[part] for part in ("expected", "actual", "remedy"))
    assert "Traceback" not in reply.text
    assert content["request_id"] == reply.headers["x-request-id"]
    return reply


def test_requests_leave_nothing_in_memory(service):
    """Thousands of requests with kilobytes of headers each: when answered, they are gone."""
    (worker,) = [
        process
        for process in psutil.Process(service.supervisor).children(recursive=True)
        if process.memory_info().rss > 200 * 2**20
    ]
    padding, count = "x" * 6000, 3000
    with httpx.Client(base_url=service.url, headers={"x-padding": padding}) as client:
        for _ in range(300):
            client.get("/models").raise_for_status()
        before = worker.memory_info().rss
        for _ in range(count):
            client.get("/livez").raise_for_status()
    assert worker.memory_info().rss - before < count * len(padding) / 2
