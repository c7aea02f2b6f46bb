"""A real model registry, a real BentoML process, and servers that are none, for tests and benchmarks."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import tifffile
from mlflow import MlflowClient
from specimens import cells, make_checkpoint, noisy

from cvdm.checkpoint import file_digest, save_checkpoint
from cvdm.images import write_tiff

TASK = "test-cells"
START_SECONDS, SWAP_SECONDS = 120, 30
MODEL_CODE = """
import mlflow
class Restorer(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input
mlflow.models.set_model(Restorer())
"""


class Store:
    """An MLflow registry on SQLite, filled the way the lifecycle fills it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = root / "mlflow.db"
        self.uri = f"sqlite:///{self.database}"
        self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self._experiment = self.client.create_experiment(
            "tests", artifact_location=(root / "artifacts").as_uri()
        )
        self._code = root / "model_code.py"
        self._code.write_text(MODEL_CODE, encoding="utf-8")

    def register(self, directory: Path, *, task: str = TASK, champion: bool = False) -> int:
        """Register a checkpoint directory (named `checkpoint`) as the task's next version."""
        name = f"cvdm-{task}"
        mlflow.set_tracking_uri(self.uri)
        with mlflow.start_run(experiment_id=self._experiment) as run:
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(self._code),
                artifacts={"checkpoint": str(directory)},
                pip_requirements=["numpy"],
            )
        if not self.client.search_registered_models(f"name='{name}'"):
            self.client.create_registered_model(name)
        tags = {"task": task, "verdict": "promote", "dataset_digest": "d" * 64}
        made = self.client.create_model_version(
            name, info.model_uri, run_id=run.info.run_id, model_id=info.model_id, tags=tags
        )
        if champion:
            self.promote(int(made.version), task=task)
        return int(made.version)

    def promote(self, version: int, *, task: str = TASK) -> None:
        self.client.set_registered_model_alias(f"cvdm-{task}", "champion", str(version))


def checkpoint_dir(parent: Path, *, seed: int = 0, task: str = TASK) -> Path:
    """A healthy checkpoint directory; another seed is another model."""
    directory = parent / f"{task}-{seed}" / "checkpoint"
    directory.parent.mkdir(parents=True)
    save_checkpoint(directory, make_checkpoint(seed=seed, task=task), cells(np.random.default_rng(7), 32))
    return directory


def corrupt_golden(directory: Path) -> None:
    """Make the golden answer wrong although every checksum is right: only a replay can tell."""
    golden = directory / "golden" / "mean.tif"
    write_tiff(golden, tifffile.imread(golden) + 50)
    description = json.loads((directory / "model.json").read_text())
    description["files"]["golden/mean.tif"] = file_digest(golden)
    (directory / "model.json").write_text(json.dumps(description))


def tiff_bytes(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def acquired(size: int = 64, *, seed: int = 1) -> bytes:
    """A noisy 8-bit image of cells as a plain TIFF file."""
    rng = np.random.default_rng(seed)
    return tiff_bytes(np.round(noisy(cells(rng, size), rng)).astype(np.uint8))


@dataclass
class Service:
    """A running service and what it said before it had any model."""

    url: str
    store: Store
    log: Path
    before: dict[str, httpx.Response] = field(default_factory=dict)
    supervisor: int | None = None
    """Id of the process that started the worker."""

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, **options)

    def reconstruct(self, image: bytes, **fields: Any) -> httpx.Response:
        data = {name: str(value) for name, value in fields.items()}
        return httpx.post(
            f"{self.url}/reconstruct", files={"image": ("in.tif", image)}, data=data, timeout=120
        )

    def models(self) -> dict[int, dict[str, Any]]:
        """GET /models by version."""
        return {entry["version"]: entry for entry in self.get("/models").json()["models"]}

    def wait_for(self, probe: Callable[[], Any], seconds: float = SWAP_SECONDS) -> Any:
        """What `probe` returns as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (found := probe()):
            assert time.monotonic() < deadline, f"waited {seconds} s in vain\n{self.log.read_text()[-3000:]}"
            time.sleep(0.2)
        return found

    def crown(self, version: int) -> None:
        """Make a version champion, whoever was, and wait until it serves."""
        self.store.promote(version)
        self.wait_for_champion(version)

    def wait_for_champion(self, version: int) -> None:
        self.wait_for(lambda: self.models().get(version, {}).get("serving", False))


def start(root: Path, store: Store, port: int, log: Path, **changes: str) -> subprocess.Popen[bytes]:
    """A service process with its files in `root`; changes: environment variables."""
    settings = {
        "CVDM_TRACKING_URI": store.uri,
        "CVDM_CACHE_DIR": str(root / "cache"),
        "CVDM_JOBS_DIR": str(root / "jobs"),
        "CVDM_KEYS_FILE": str(root / "keys.db"),
        "CVDM_DEVICE": "cpu",
        "CVDM_POLL_SECONDS": "0.3",
        "CVDM_MAX_UPLOAD_BYTES": str(2**20),
        "CVDM_MAX_PIXELS": str(2**20),
        "CVDM_MAX_WAITING": "8",
        "BENTOML_HOME": str(root / "bentoml"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "bentoml", "serve", "service.service:CvdmService", "--port", str(port)]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=Path(__file__).parents[1],
            env=os.environ | settings | changes,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def answers(running: Service) -> bool:
    """Whether the process lives."""
    try:
        return httpx.get(f"{running.url}/livez", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    """Of this machine, free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[int]:
    """A server on a free port."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def respond(handler: BaseHTTPRequestHandler, told: Any, status: int | None = None) -> None:
    """200 with JSON, or 503 for None, unless a status is given."""
    handler.send_response(status or (503 if told is None else 200))
    handler.end_headers()
    handler.wfile.write(json.dumps(told).encode())
