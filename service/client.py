"""Ask a running service, from Python: arrays or files in, arrays or files out.

    from service.client import Client

    client = Client("http://127.0.0.1:3000")  # with the key in CVDM_KEY, or Client(..., key="...")
    restored = client.reconstruct(pixels, task="fmd-confocal-nuclei")
    restored.channels["uncertainty_std"]

    job = client.submit(["a.tif", "b.tif"], task="fmd-confocal-nuclei", key="monday")
    job.wait(print)
    job.save(0, "a.ome.tif")

    job = client.submit([stack], axes="ZYX")
    job.wait()
    job.load(0).channels["reconstruction"]

Needs neither PyTorch nor a model. A service that does not answer is asked again for a while where asking
twice does no harm, so that a job is waited for through a restart of its service.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import numpy as np
import tifffile

from cvdm.errors import CvdmError, ImageError
from cvdm.images import read_annotations
from cvdm.storage import replacing

KEY = "CVDM_KEY"
"""Environment variable with the key of whoever asks."""
ANSWER_SECONDS = 3600.0
"""Longest wait for an image that is answered at once, and for a job's images to be looked at."""
CONNECT_SECONDS, LISTEN_SECONDS = 10.0, 30.0
"""Longest wait for a connection, and for an answer that needs no work."""
PATIENCE_SECONDS = 120.0
"""How long a service may be away while a job is waited for."""
LOOK_SECONDS = 0.5
CHUNK = 2**20
PREFIX = "x-cvdm-"
ENDED = ("done", "failed", "cancelled")

Picture = np.ndarray | Path | str
"""Pixels in the detector's units, or a file or OME-Zarr folder that the service reads."""
AXES = "TCZYX"


class ServiceRefusal(CvdmError):
    """The service's own message, or that there is none."""

    status: int | None = None
    """Of its reply; None when nobody answered."""
    kind: str = ""
    """The service's name for what it refused, such as BusyError."""


@dataclass(frozen=True)
class Restored:
    """An answer."""

    channels: Mapping[str, np.ndarray]
    """reconstruction, uncertainty_std, lower, upper, and the maps that were asked for: float32 in the input's
    units, (H, W) or for a stack (T, Z, H, W) without axes of length one. Of an input with channels, each has
    them all, by `CHANNEL reconstruction` and so on."""
    provenance: Mapping[str, str]
    """Model, version, data, sampling, and whether the interval is calibrated for it."""


class Client:
    """One service. Usable from several threads; close it, or use it in a `with` block."""

    def __init__(self, url: str = "http://127.0.0.1:3000", *, key: str | None = None) -> None:
        """key: where the service wants one; whoever runs it makes it with `cvdm keys create`. Left out, it is
        the environment variable CVDM_KEY, whatever the address; an empty one is none.

        Raises ServiceRefusal for one that no request can carry.
        """
        self.url = url.rstrip("/")
        given = os.environ.get(KEY, "") if key is None else key
        secret = given.strip()  # a file's line break may be at its end
        if not secret.isascii():
            raise ServiceRefusal(
                "a key of ASCII letters", "other ones", "Copy it as `cvdm keys create` gave it."
            )
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._http = httpx.Client(base_url=self.url, timeout=timeout, headers=headers)

    def models(self) -> list[dict[str, Any]]:
        """Every version that the service knows, with its state. Raises ServiceRefusal.

        Of a service that has just started it waits for the first look at the registry: before, there is none.
        """
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            told = self._asked("GET", "/models", timeout=LISTEN_SECONDS).json()
            registry = told["registry"]
            if registry["checked"] or registry["error"] or time.monotonic() > until:
                return list(told["models"])
            time.sleep(LOOK_SECONDS)

    def caller(self) -> dict[str, Any]:
        """Who you are to the service: name, role, and whether it is open. Raises ServiceRefusal."""
        found: dict[str, Any] = self._asked("GET", "/session", timeout=LISTEN_SECONDS).json()
        return found

    def reconstruct(self, picture: Picture, *, axes: str | None = None, **choices: Any) -> Restored:
        """Restore one image at once.

        axes: of an array with channels, "CYX", for a model that sees several. choices: task, version (a
        number, "champion", "previous"), samples, steps, seed, maps (further channels of the result, out of
        schedule_map and residual); None leaves it to the service. Raises ServiceRefusal, ImageError.
        """
        with _opened([picture], axes) as files:
            reply = self._asked("POST", "/reconstruct", files=files, data=_form(choices))
        return _restored(io.BytesIO(reply.content))

    def reconstruct_file(self, source: Path, target: Path, **choices: Any) -> dict[str, str]:
        """Restore one file to an OME-TIFF at once; returns its provenance.

        choices: as of `reconstruct`. Raises ServiceRefusal, ImageError, StorageError.
        """
        with _opened([source]) as files:
            reply = self._asked("POST", "/reconstruct", files=files, data=_form(choices))
        with replacing(target) as temporary:
            temporary.write_bytes(reply.content)
        return {
            name.removeprefix(PREFIX): value
            for name, value in reply.headers.items()
            if name.startswith(PREFIX)
        }

    def submit(
        self, pictures: Sequence[Picture], *, key: str | None = None, axes: str | None = None, **choices: Any
    ) -> RemoteJob:
        """Have images and stacks restored as a job.

        key: of your own choice; sent again with the same images it is the same job. axes: of arrays of more
        than two, e.g. "ZYX" or "TCZYX". choices: as of `reconstruct`, and channels (names or numbers; all
        where there are none). Raises ServiceRefusal, ImageError.
        """
        headers = {} if key is None else {"idempotency-key": key}
        with _opened(pictures, axes) as files:
            reply = self._asked("POST", "/jobs", files=files, data=_form(choices), headers=headers)
        return RemoteJob(self, reply.json()["id"])

    def jobs(self) -> list[dict[str, Any]]:
        """Your newest jobs. Raises ServiceRefusal."""
        return list(self._patiently("GET", "/jobs").json()["jobs"])

    def job(self, id: str) -> RemoteJob:
        """A job by its id."""
        return RemoteJob(self, id)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, path: str, target: Path) -> None:
        """Download to a file, whole or not at all. Raises ServiceRefusal, StorageError."""
        with self._spoken_to(path), self._http.stream("GET", path) as reply:
            if not reply.is_success:
                reply.read()
                raise _refusal(reply)
            with replacing(target) as temporary, temporary.open("wb") as file:
                for chunk in reply.iter_bytes(CHUNK):
                    file.write(chunk)

    def _patiently(self, method: str, path: str) -> httpx.Response:
        """Ask until somebody answers."""
        until = time.monotonic() + PATIENCE_SECONDS
        options = {"timeout": LISTEN_SECONDS} if method == "GET" else {}  # else asking twice may do harm
        while True:
            try:
                return self._asked(method, path, **options)
            except ServiceRefusal as error:
                if error.status not in (None, 503) or time.monotonic() > until:
                    raise
                time.sleep(LOOK_SECONDS)

    def _asked(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._spoken_to(path):
            reply = self._http.request(method, path, **options)
        if not reply.is_success:
            raise _refusal(reply)
        return reply

    @contextmanager
    def _spoken_to(self, path: str) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ServiceRefusal(
                f"a service at {self.url}{path}", reason, "Start one with `cvdm up` or `cvdm serve`."
            ) from error


@dataclass(frozen=True)
class RemoteJob:
    """A job of a service."""

    client: Client
    id: str

    def describe(self) -> dict[str, Any]:
        """State, percent, seconds left, and each image with its own. Raises ServiceRefusal."""
        found: dict[str, Any] = self.client._patiently("GET", f"/jobs/{self.id}").json()
        return found

    def wait(self, tell: Callable[[dict[str, Any]], None] = lambda job: None) -> dict[str, Any]:
        """Until it has ended; returns what it is then. tell: called with what it is at every look.

        Raises ServiceRefusal.
        """
        while True:
            job = self.describe()
            tell(job)
            if job["state"] in ENDED:
                return job
            time.sleep(LOOK_SECONDS)

    def save(self, number: int, target: Path | str) -> None:
        """Download the result of one of its images, counted from 0. Raises ServiceRefusal, StorageError."""
        self.client.save(f"/jobs/{self.id}/images/{number}/result", Path(target))

    def load(self, number: int) -> Restored:
        """The result of one of its images, counted from 0, in memory. Raises ServiceRefusal, StorageError."""
        with tempfile.TemporaryDirectory(prefix="cvdm-client-") as folder:
            path = Path(folder) / "result.ome.tif"
            self.save(number, path)
            with path.open("rb") as file:
                return _restored(file)

    def cancel(self) -> None:
        """End it. Raises ServiceRefusal."""
        self.client._patiently("POST", f"/jobs/{self.id}/cancel")

    def remove(self) -> None:
        """Have it forgotten, with its results; it must have ended. Raises ServiceRefusal."""
        self.client._patiently("DELETE", f"/jobs/{self.id}")


@contextmanager
def _opened(
    pictures: Sequence[Picture], axes: str | None = None
) -> Iterator[list[tuple[str, tuple[str, BinaryIO]]]]:
    """As form files."""
    with ExitStack() as exits:
        files = []
        for picture in pictures:
            if isinstance(picture, np.ndarray):
                files.append(("image", ("array.tif", _as_tiff(picture, axes))))
                continue
            path = Path(picture)
            try:
                if path.is_dir():
                    files.append(("image", (f"{path.name}.zip", exits.enter_context(_zipped(path)))))
                    continue
                files.append(("image", (path.name, exits.enter_context(path.open("rb")))))
            except OSError as error:
                raise ImageError(
                    "an image file that can be read", f"{path}: {error.strerror}", "Check the path."
                ) from error
        yield files


@contextmanager
def _zipped(folder: Path) -> Iterator[BinaryIO]:
    """An OME-Zarr folder as one file; its chunks are compressed already. Raises OSError."""
    with tempfile.TemporaryFile(prefix="cvdm-client-") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
            for member in sorted(folder.rglob("*")):
                if member.is_file():
                    packed.write(member, member.relative_to(folder).as_posix())
        file.seek(0)
        yield file


def _as_tiff(pixels: np.ndarray, axes: str | None) -> BinaryIO:
    content = io.BytesIO()
    if pixels.ndim == 2:
        tifffile.imwrite(content, pixels, photometric="minisblack", metadata=None)
    else:
        order = _order_of(pixels, axes)
        named = "".join(AXES[at] for at in sorted(AXES.index(axis) for axis in order))
        moved = np.transpose(pixels, [order.index(axis) for axis in named])
        tifffile.imwrite(content, moved, photometric="minisblack", ome=True, metadata={"axes": named})
    content.seek(0)
    return content


def _order_of(pixels: np.ndarray, axes: str | None) -> str:
    """The axes, if they name an array's. Raises ImageError."""
    named = axes or ""
    if len(named) == pixels.ndim == len(set(named)) and set("YX") <= set(named) <= set(AXES):
        return named
    raise ImageError(
        f"one plane of pixels (H, W), or an array whose axes are named, out of {AXES}",
        f"an array of shape {pixels.shape} with the axes {axes!r}",
        'Name them, e.g. submit([stack], axes="ZYX").',
    )


def _restored(content: BinaryIO) -> Restored:
    with tifffile.TiffFile(content) as tif:
        series = tif.series[0]
        pixels, names = np.moveaxis(series.asarray(), series.axes.index("C"), 0), _channel_names(tif)
    content.seek(0)
    return Restored(dict(zip(names, pixels, strict=True)), read_annotations(content))


def _form(choices: Mapping[str, Any]) -> dict[str, str]:
    given = {name: value for name, value in choices.items() if value is not None}
    return {
        name: str(value) if isinstance(value, str | int) else ",".join(map(str, value))
        for name, value in given.items()
    }


def _channel_names(tif: tifffile.TiffFile) -> list[str]:
    pixels = tifffile.xml2dict(tif.ome_metadata or "")["OME"]["Image"]["Pixels"]
    return [str(channel["Name"]) for channel in pixels["Channel"]]


def _refusal(reply: httpx.Response) -> ServiceRefusal:
    try:
        body = reply.json()
        error = ServiceRefusal(body["expected"], body["actual"], body["remedy"])
    except (json.JSONDecodeError, KeyError, TypeError):
        text = " ".join(reply.text.split())[:200]
        error = ServiceRefusal(
            "an answer of the service", f"{reply.status_code}: {text}", "Check the address."
        )
    else:
        error.kind = str(body.get("error", ""))
    error.status = reply.status_code
    return error
