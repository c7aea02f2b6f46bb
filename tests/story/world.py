"""The platform in a folder of its own: a clone of this checkout, its servers, and its one command.

ROOT/platform/   the clone; what an operator's checkout is, with data, models and mlruns of its own
ROOT/arrivals/   batches from the microscope
ROOT/story.log   what commands and servers told
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import httpx
import psutil
import yaml

from flows.registry import Registry
from flows.servers import answers, free_port
from flows.settings import Settings

CHECKOUT = Path(__file__).parents[2]
CVDM = Path(sys.executable).with_name("cvdm")
READY_SECONDS = 180


class OtherwiseError(Exception):
    """Something happened that the scene did not expect."""


def require(holds: object, otherwise: str) -> None:
    """Raise OtherwiseError, which says what happened instead."""
    if not holds:
        raise OtherwiseError(otherwise)


class World:
    """A platform to play with; everything that it starts ends with `up`."""

    def __init__(self, root: Path) -> None:
        self.root, self.home, self.arrivals = root, root / "platform", root / "arrivals"
        shutil.rmtree(root, ignore_errors=True)
        self.arrivals.mkdir(parents=True)
        self._log: TextIO = (root / "story.log").open("a")
        ports = {name: str(free_port("127.0.0.1")) for name in ("MLFLOW", "PREFECT", "SERVICE")}
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CVDM_")},
            **{f"CVDM_{name}_PORT": port for name, port in ports.items()},
            # The code of this checkout, whatever is installed; the rest is for the saboteur.
            "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'tests'}:{CHECKOUT / 'benchmarks'}",
            "CVDM_HOME": str(self.home),
            "CVDM_CACHE_DIR": str(root / "service-cache"),
            "CVDM_ALERTS": (root / "alerts.jsonl").as_uri(),
            "CVDM_TRIGGERS": "",  # nothing starts by itself meanwhile
        }
        self.service_url = f"http://127.0.0.1:{ports['SERVICE']}"

    def build(self, presets: dict[str, Any]) -> None:
        """Clone the checkout, fetch its data, add presets."""
        self._tool("git", "clone", "--quiet", str(CHECKOUT), str(self.home), at=self.root)
        for key, value in (("user.name", "cvdm story"), ("user.email", "story@localhost")):
            self._tool("git", "config", key, value)
        self._tool(sys.executable, "-m", "dvc", "pull", "--quiet")
        params = self.home / "params.yaml"
        content = yaml.safe_load(params.read_text(encoding="utf-8"))
        content["presets"] |= presets
        params.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        self._tool("git", "commit", "--quiet", "--all", "--message", "Presets of the story")

    def settings(self, **changes: Any) -> Settings:
        """As the commands see them."""
        own = {"home": self.home, "service_port": self.environment["CVDM_SERVICE_PORT"]}
        return Settings.read(**own, **changes)

    def registry(self) -> Registry:
        """The platform's own, opened beside its servers."""
        return Registry.open(self.settings())

    def cvdm(self, *arguments: str, code: int = 0, **changes: str) -> dict[str, Any]:
        """The JSON answer of `cvdm ARGUMENTS`, which must end with this exit code."""
        return self.answer([str(CVDM), *arguments, "--json"], code=code, **changes)

    def answer(self, command: list[str], *, code: int = 0, **changes: str) -> dict[str, Any]:
        """The JSON document that a command prints; `changes` are further environment variables."""
        self._note(command)
        ended = subprocess.run(
            command,
            cwd=self.home,
            env=self.environment | changes,
            stdout=subprocess.PIPE,
            stderr=self._told(),
            text=True,
        )
        self._log.write(f"{ended.stdout}\n(exit code {ended.returncode})\n")
        self._log.flush()
        require(
            ended.returncode == code, f"exit code {ended.returncode} instead of {code}: {ended.stdout[:500]}"
        )
        return dict(json.loads(ended.stdout))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """`cvdm ARGUMENTS` in the background, in a process group of its own."""
        command = [str(CVDM), *arguments]
        self._note(command)
        return subprocess.Popen(
            command,
            cwd=self.home,
            env=self.environment,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    @contextmanager
    def up(self) -> Iterator[None]:
        """`cvdm up` for the block: tracking server, orchestrator, service."""
        process = self.start("up")
        self._up = process
        try:
            api = f"http://127.0.0.1:{self.environment['CVDM_PREFECT_PORT']}/api/health"
            wait_until(
                lambda: answers(f"{self.service_url}/livez") and answers(api), READY_SECONDS, "`cvdm up`"
            )
            yield
        finally:
            process.terminate()  # where the story runs in the background, it ignores Ctrl-C
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                kill(process)

    def serving(self, task: str) -> int | None:
        """The version that the service serves."""
        models = httpx.get(f"{self.service_url}/models", timeout=30).json()["models"]
        return next((one["version"] for one in models if one["task"] == task and one["serving"]), None)

    @contextmanager
    def service_frozen(self) -> Iterator[Callable[[], None]]:
        """Gives a function that stops the service's processes where they are, until the block ends."""
        family = [
            one
            for one in psutil.Process(self._up.pid).children(recursive=True)
            if any("bentoml" in part for part in one.cmdline())
        ]
        require(family, "no process of the service was found")

        def freeze() -> None:
            for one in family:
                one.suspend()

        try:
            yield freeze
        finally:
            for one in family:
                one.resume()

    def _tool(self, *command: str, at: Path | None = None) -> None:
        self._note(command)
        done = subprocess.run(command, cwd=at or self.home, stdout=self._log, stderr=self._told())
        require(done.returncode == 0, f"`{' '.join(command[:3])}` failed; see {self._log.name}")

    def _told(self) -> TextIO:
        """Where bars go: to whoever watches, else into the log."""
        return sys.stderr if sys.stderr.isatty() else self._log

    def _note(self, command: list[str] | tuple[str, ...]) -> None:
        self._log.write(f"\n$ {' '.join(command)}\n")
        self._log.flush()


def wait_until(holds: Callable[[], object], seconds: float, what: str) -> None:
    """Poll a condition."""
    deadline = time.monotonic() + seconds
    while not holds():
        require(time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}")
        time.sleep(0.5)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a process and everything that it has started."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in family:
        one.kill()
    process.wait(60)
