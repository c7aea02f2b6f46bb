"""What the service adds and what it survives: `python benchmarks/serving.py [--quick]`.

overhead   images restored by direct calls in one process and by the service, in turns, with threads set
           alike; the service's throughput over the direct one
health     /livez, asked while the device is saturated by those images; the 99th percentile
cancel     from the cancel of a running job to its end, beyond one evaluation of the network
load       50 clients with images of many sizes while three champions take over: failed requests, answers of a
           version that was not champion then, answers that differ from another one to the same question,
           and memory after against memory when warm
kills      SIGKILL at random moments with queued and running jobs: jobs lost, done twice, or with other bytes

Overhead, health and cancel use the shipped model of `fmd-confocal-nuclei`, the others a tiny one.
Exit code 1 when a number is missed. The last line sums up.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import tifffile
import torch
from tqdm import tqdm

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "tests"))
from service_world import Service, Store, acquired, answers, checkpoint_dir, free_port, start  # noqa: E402

from cvdm.checkpoint import load_checkpoint  # noqa: E402
from cvdm.images import read_image  # noqa: E402
from cvdm.posterior import reconstruct  # noqa: E402
from service.environment import set_defaults  # noqa: E402
from service.settings import Settings  # noqa: E402

BASE, CELLS = "fmd-confocal-nuclei", "test-cells"
SIDE, PROBE_SECONDS = 256, 0.02
POLL_SECONDS = str(Settings.model_fields["poll_seconds"].default)
CLIENTS, SIZES = 50, (32, 48, 64, 96, 128)
REACH = {"overhead": 0.9, "health": 50.0, "cancel": 1.0, "drift": 5.0}


@dataclass
class Report:
    """Lines for people, and what was missed."""

    missed: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def tell(self, name: str, text: str, reached: bool) -> None:
        """One number."""
        line = f"{name:9} {text}{'' if reached else '   MISSED'}"
        print(line, flush=True)
        self.told.append(text)
        if not reached:
            self.missed.append(name)


@contextmanager
def served(root: Path, store: Store, **changes: str) -> Any:
    """A service process with its worker's process beside it."""
    running = Service(f"http://127.0.0.1:{free_port()}", store, root / f"service-{time.time_ns()}.log")
    process = start(root, store, int(running.url.rsplit(":", 1)[1]), running.log, **changes)
    try:
        running.wait_for(partial(answers, running), 120)
        running.wait_for(lambda: httpx.get(f"{running.url}/readyz", timeout=5).status_code == 200, 120)
        yield running, process
    finally:
        end(process, whole=True)


def end(process: subprocess.Popen[bytes], *, whole: bool) -> None:
    """SIGKILL, for the supervising process alone or for its workers too."""
    with suppress(psutil.NoSuchProcess):
        tree = [psutil.Process(process.pid)]
        tree += tree[0].children(recursive=True) if whole else []
        for one in tree:
            with suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait()


def crops(count: int) -> list[bytes]:
    """Parts of real images as TIFF files."""
    sources = sorted((CHECKOUT / "data" / BASE / "low").glob("*.tif"))[:count]
    found = []
    for source in sources:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, tifffile.imread(source)[:SIDE, :SIDE])
        found.append(buffer.getvalue())
    return found


def overhead_and_health(report: Report, root: Path, quick: bool) -> None:
    """In turns, so that whatever else the machine does strikes both."""
    images, rounds = crops(2 if quick else 8), 3 if quick else 5
    checkpoint = load_checkpoint(root / BASE / "checkpoint")
    store = Store(root)
    store.register(root / BASE / "checkpoint", task=BASE, champion=True)
    latencies: list[float] = []
    ratios = []
    # Threads as here, and looks at the registry as often as a facility's service takes them.
    shipped = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "CVDM_POLL_SECONDS": POLL_SECONDS}
    with served(root, store, **shipped) as (running, _):
        ask(running, images[0])  # both sides warm
        reconstruct(checkpoint, read_image(io.BytesIO(images[0])).pixels)
        for _ in range(rounds):
            began = time.perf_counter()
            for image in images:
                reconstruct(checkpoint, read_image(io.BytesIO(image)).pixels)
            direct = time.perf_counter() - began
            with ThreadPoolExecutor(4) as clients:
                began = time.perf_counter()
                list(clients.map(partial(ask, running), images))
                ratios.append(direct / (time.perf_counter() - began))
        with probed(running, latencies), ThreadPoolExecutor(4) as clients:
            list(clients.map(partial(ask, running), images))
        ratio, worst = float(np.median(ratios)), float(np.percentile(latencies, 99)) * 1000
        spread = ", ".join(f"{one:.3f}" for one in ratios)
        report.tell(
            "overhead", f"throughput {ratio:.3f} of direct calls ({spread})", ratio >= REACH["overhead"]
        )
        report.tell(
            "health", f"p99 {worst:.1f} ms of {len(latencies)} looks under load", worst <= REACH["health"]
        )
        cancel(report, running, images[0], 1 if quick else 5)


def ask(running: Service, image: bytes) -> None:
    reply = running.reconstruct(image, task=BASE)
    if reply.status_code != 200:
        raise RuntimeError(reply.text)


@contextmanager
def probed(running: Service, latencies: list[float]) -> Any:
    """Ask for /livez all the while."""
    over = threading.Event()

    def probe() -> None:
        with httpx.Client(base_url=running.url, timeout=30) as client:
            while not over.is_set():
                began = time.perf_counter()
                client.get("/livez").raise_for_status()
                latencies.append(time.perf_counter() - began)
                over.wait(PROBE_SECONDS)

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        yield
    finally:
        over.set()
        prober.join()


def cancel(report: Report, running: Service, image: bytes, times: int) -> None:
    """Seconds from asking to the end, and what one evaluation takes."""
    waits, evaluation = [], 0.0
    for _ in range(times):
        job = enter(running, image, {"task": BASE, "samples": 64, "steps": 100})
        running.wait_for(lambda job=job: described(running, job)["percent"] > 0, 60)
        began, before = time.perf_counter(), evaluations(running)
        time.sleep(4)  # the metric is told every two seconds
        done = evaluations(running) - before
        evaluation = max(evaluation, (time.perf_counter() - began) / max(1, done))
        began = time.perf_counter()
        httpx.post(f"{running.url}/jobs/{job}/cancel").raise_for_status()
        while described(running, job)["state"] != "cancelled":
            time.sleep(0.01)
        waits.append(time.perf_counter() - began)
    longest = max(waits)
    text = f"at most {longest:.2f} s, an evaluation takes {evaluation:.2f} s"
    report.tell("cancel", text, longest <= evaluation + REACH["cancel"])


def evaluations(running: Service) -> float:
    (line,) = [
        one for one in running.get("/metrics").text.splitlines() if one.startswith("cvdm_evaluations_total")
    ]
    return float(line.split()[-1])


def described(running: Service, job: str) -> dict[str, Any]:
    reply = httpx.get(f"{running.url}/jobs/{job}", timeout=60)
    reply.raise_for_status()
    return dict(reply.json())


def enter(running: Service, image: bytes, fields: dict[str, Any], key: str | None = None) -> str:
    reply = httpx.post(
        f"{running.url}/jobs",
        files={"image": ("cell.tif", image)},
        data={name: str(value) for name, value in fields.items()},
        headers={} if key is None else {"idempotency-key": key},
        timeout=60,
    )
    reply.raise_for_status()
    return str(reply.json()["id"])


def load(report: Report, root: Path, seconds: float) -> None:
    """Clients that ask again as soon as they are answered, and swaps in between."""
    store = Store(root)
    versions = [store.register(checkpoint_dir(root / "versions", seed=seed)) for seed in range(4)]
    store.promote(versions[0])
    images = {size: acquired(size, seed=size) for size in SIZES}
    failed: list[str] = []
    wrong: list[str] = []
    seen: dict[tuple[int, int], set[str]] = {}
    lock, over, serving = threading.Lock(), threading.Event(), [versions[0]]
    promoted, asked, memory = [versions[0]], Counter[int](), []

    def client(number: int) -> None:
        rng = random.Random(number)  # noqa: S311 - repeatable, not secret
        while not over.is_set():
            size = rng.choice(SIZES)
            least = serving[-1]
            try:
                reply = running.reconstruct(images[size])
            except httpx.HTTPError as error:
                failed.append(repr(error))
                continue
            if reply.status_code != 200:
                failed.append(reply.text)
                continue
            version = int(reply.headers["x-cvdm-version"])
            with lock:
                asked[version] += 1
                seen.setdefault((size, version), set()).add(hashlib.sha256(reply.content).hexdigest())
                if not least <= version <= promoted[-1]:
                    wrong.append(f"version {version}, between {least} and {promoted[-1]}")

    with served(root, store, CVDM_MAX_WAITING="60") as (running, process):
        worker = max(
            psutil.Process(process.pid).children(recursive=True), key=lambda one: one.memory_info().rss
        )
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(client, number) for number in range(CLIENTS)]
            began, swaps = time.monotonic(), 0
            bar = tqdm(total=round(seconds), desc="load", unit="s", file=sys.stderr)
            while (elapsed := time.monotonic() - began) < seconds:
                time.sleep(1)
                bar.update(round(elapsed) - bar.n)
                memory.append((elapsed, worker.memory_info().rss))
                if swaps < 3 and elapsed > (swaps + 1) * seconds / 4:
                    swaps += 1
                    promoted.append(versions[swaps])
                    store.promote(versions[swaps])
                if running.models()[promoted[-1]]["serving"]:
                    serving.append(promoted[-1])
            bar.close()
            over.set()
            for one in clients:
                one.result()
    differing = sum(len(results) > 1 for results in seen.values())
    warm = [rss for moment, rss in memory if 0.3 * seconds < moment < 0.5 * seconds]
    late = [rss for moment, rss in memory if moment > 0.8 * seconds]
    drift = 100 * (np.median(late) / np.median(warm) - 1)
    text = (
        f"{sum(asked.values())} answers of versions {dict(sorted(asked.items()))} in {seconds:.0f} s, "
        f"{len(failed)} failed, {len(wrong)} wrong versions, {differing} questions with two answers, "
        f"memory {drift:+.1f} % ({np.median(late) / 2**20:.0f} MiB)"
    )
    tenths = np.array_split([rss / 2**20 for _, rss in memory], 10)
    print("  MiB of the worker in each tenth:", ", ".join(f"{np.median(part):.0f}" for part in tenths))
    for reason in (*failed[:3], *wrong[:3]):
        print(" ", reason[:300])
    sound = not failed and not wrong and not differing and len(asked) == 4 and drift <= REACH["drift"]
    report.tell("load", text, sound)


def kills(report: Report, root: Path, count: int, small: int = 19) -> None:
    """One long job and `small` short ones. Every process goes on with what the one before it left."""
    store, rng = Store(root), random.Random(5)  # noqa: S311 - repeatable, not secret
    store.register(checkpoint_dir(root / "killed"), champion=True)
    orders: list[tuple[bytes, dict[str, Any]]] = [
        (acquired(200), {"samples": 16, "steps": small + 2 * count}),
        *((acquired(40 + n), {"seed": n}) for n in range(small)),
    ]
    ids: dict[int, str] = {}
    doubled = 0
    for _ in tqdm(range(count), desc="kills", file=sys.stderr):
        with killed(root, store, rng) as running:
            for number, (image, fields) in enumerate(orders):
                id = enter(running, image, fields, str(number))
                doubled += ids.setdefault(number, id) != id
    with served(root, store) as (running, _):
        running.wait_for(lambda: running.get("/jobs").status_code == 200, 60)
        listed = [job["id"] for job in running.get("/jobs").json()["jobs"]]
        doubled += len(listed) - len(set(listed) & set(ids.values()))
        running.wait_for(partial(all_ended, running, listed), 600)
        lost = sum(id not in listed or described(running, id)["state"] != "done" for id in ids.values())
        differing = sum(
            running.get(f"/jobs/{ids[number]}/result").content != running.reconstruct(image, **fields).content
            for number, (image, fields) in enumerate(orders)
        )
    text = f"{count} deaths, {len(ids)} jobs: {lost} lost, {doubled} done twice, {differing} with other bytes"
    report.tell("kills", text, not (lost or doubled or differing))


@contextmanager
def killed(root: Path, store: Store, rng: random.Random) -> Any:
    """A service that dies some time after it was given its orders; every second time its worker with it."""
    running = Service(f"http://127.0.0.1:{free_port()}", store, root / f"service-{time.time_ns()}.log")
    process = start(root, store, int(running.url.rsplit(":", 1)[1]), running.log)
    try:
        running.wait_for(partial(jobs_answer, running), 120)
        yield running
        time.sleep(rng.uniform(0, 2))
    finally:
        end(process, whole=rng.random() < 0.5)


def jobs_answer(running: Service) -> bool:
    try:
        return all(
            httpx.get(f"{running.url}/{path}", timeout=5).status_code == 200 for path in ("readyz", "jobs")
        )
    except httpx.TransportError:
        return False


def all_ended(running: Service, ids: list[str]) -> bool:
    return all(described(running, id)["ended"] for id in ids)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="about two minutes")
    parser.add_argument("--minutes", type=float, default=10, help="of load")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", choices=("overhead", "load", "kills"), help="a part of it")
    options = parser.parse_args()
    if set_defaults():  # read when a process starts: both sides of a comparison have them
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this very process again
    seconds, deaths = (12.0, 1) if options.quick else (60 * options.minutes, options.kills)
    report = Report()
    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, PyTorch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )
    parts: dict[str, Callable[[Path], None]] = {
        "overhead": lambda root: overhead_and_health(report, root, options.quick),
        "load": lambda root: load(report, root, seconds),
        "kills": lambda root: kills(report, root, deaths, 4 if options.quick else 19),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="cvdm-service-") as scratch:
                root = Path(scratch)
                if name == "overhead":
                    shutil.copytree(CHECKOUT / "models" / BASE, root / BASE / "checkpoint")
                part(root)
    verdict = f"missed: {', '.join(report.missed)}" if report.missed else "all reached"
    print(f"{'; '.join(report.told)}; {verdict}")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
