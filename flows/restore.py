"""Images restored from a shell: by a checkpoint directory, a registered version, or a running service."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from cvdm.config import SamplingConfig
from cvdm.errors import ConfigError, CvdmError, ImageError
from cvdm.images import read_annotations
from cvdm.progress import note
from cvdm.reading.names import listed
from cvdm.storage import content_digest
from flows.batch import Errand, Outcome, Way, carry_out
from flows.progress import progress_bar
from flows.servers import waiting_line
from flows.settings import Settings
from service.client import Client, ServiceRefusal

Progress = Callable[[int, int], None]

AT_ONCE = 4
"""Images that are with a service at the same time: one is worked on while others travel."""


@dataclass(frozen=True)
class Draws:
    """What may be chosen for a reconstruction; None leaves it to the model."""

    samples: int | None = None
    steps: int | None = None
    seed: int | None = None
    maps: str | None = None
    """Channels beside those of every result, separated by commas."""
    channels: str | None = None
    """Of a stack, by names or numbers separated by commas; all for None."""

    def applied_to(self, default: SamplingConfig) -> SamplingConfig:
        """The model's own sampling with these choices in it."""
        return replace(
            default,
            samples=default.samples if self.samples is None else self.samples,
            steps=default.steps if self.steps is None else self.steps,
            seed=default.seed if self.seed is None else self.seed,
        )


def restore_by_checkpoint(
    errands: Sequence[Errand],
    directory: Path,
    draws: Draws,
    origin: Mapping[str, str] | None = None,
    *,
    settings: Settings | None = None,
) -> Outcome:
    """Restore with a verified checkpoint directory.

    settings: names the device; None reads those of this process. A result has a pixel size where its input
    has one. Raises CvdmError where no image could be restored.
    """
    from cvdm.checkpoint import load_checkpoint, verify_golden
    from cvdm.posterior import maps_of
    from cvdm.restoration import restore_file
    from flows.job import chosen_device

    device = chosen_device((settings or Settings.read()).device)
    checkpoint = load_checkpoint(directory, device=device)
    verify_golden(directory, checkpoint)
    sampling = draws.applied_to(checkpoint.recipe.sampling)
    maps, channels = _possible_maps(draws, maps_of(checkpoint)), listed(draws.channels)
    chosen = {"maps": ", ".join(maps), "channels": ", ".join(channels)}
    one = len(errands) == 1

    def restore(errand: Errand, stopped: Event) -> dict[str, str]:
        made = {
            **checkpoint.annotations(sampling),
            **(origin or {}),
            **{name: found for name, found in chosen.items() if found},
            "input_sha256": sha256_of(errand.source),
        }
        if not _is_there(errand.target, made):
            with progress_bar("reconstruct", "tile") if one else nullcontext(_unseen) as show:
                progress = partial(_ended_by, stopped, show)
                doubts = restore_file(
                    checkpoint,
                    errand.source,
                    errand.target,
                    sampling,
                    annotations=made,
                    maps=maps,
                    channels=channels,
                    progress=progress,
                )
                for doubt in doubts:
                    note(f"Doubtful: {doubt.as_error()}")
        return made

    return carry_out(errands, restore)


def restore_by_version(
    errands: Sequence[Errand], task: str, version: str, draws: Draws, settings: Settings
) -> Outcome:
    """Restore with a registered version (number or alias), as `restore_by_checkpoint`."""
    settings.prepare_environment()
    from flows.registry import Registry, model_name

    models = Registry.open(settings).models
    found = models.version(task, version)
    origin = {"model": model_name(task), "version": str(found.number), "run_id": found.run_id}
    with tempfile.TemporaryDirectory(prefix="cvdm-reconstruct-") as scratch:
        directory = models.download(task, found.number, Path(scratch) / "checkpoint")
        return restore_by_checkpoint(errands, directory, draws, origin, settings=settings)


def restore_by_service(
    errands: Sequence[Errand], url: str, task: str | None, version: str, draws: Draws
) -> Outcome:
    """Have a service restore, as jobs: an image whose job is known is not restored again.

    All by one version: an alias is looked up once, and a champion that takes over meanwhile changes nothing.
    Raises CvdmError where no image could be restored.
    """
    one = len(errands) == 1
    with Client(url) as client:
        client.caller()  # a key that does not fit is refused once, not for every image
        choices: dict[str, Any] = _pinned(client, task, version) | asdict(draws)
        with progress_bar("reconstruct", "%") if one else nullcontext(_unseen) as show:
            return carry_out(errands, _by_jobs(client, choices, show), at_once=AT_ONCE)


def restore_at_once(source: Path, target: Path, url: str, fields: Mapping[str, str | int]) -> dict[str, str]:
    """Have a service restore one image in one request; returns what its reply tells of it."""
    with Client(url, key="") as client, waiting_line(f"reconstruct {source.name}"):
        return client.reconstruct_file(source, target, **fields)


def _pinned(client: Client, task: str | None, version: str) -> dict[str, Any]:
    """Task and version by its number; as they are where the service alone can tell, or refuse."""
    known = [entry for entry in client.models() if task in (None, entry["task"])]
    # A service that has just started has not loaded the champion that it knows.
    serving = [entry for entry in known if entry["serving"]] if version == "champion" else []
    found = serving or [entry for entry in known if version in entry["aliases"]]
    if len(found) != 1:
        return {"task": task, "version": version}
    return {"task": found[0]["task"], "version": found[0]["version"]}


def _by_jobs(client: Client, choices: Mapping[str, Any], show: Progress) -> Way:
    chosen = hashlib.sha256(repr(sorted(choices.items())).encode()).hexdigest()

    def restore(errand: Errand, stopped: Event) -> dict[str, str]:
        def look(job: dict[str, Any]) -> None:
            _ended_by(stopped, show, int(job["percent"]), 100)

        # The same image asked for in the same way is the same job: restored already, or on its way.
        key = f"{sha256_of(errand.source)}-{chosen}"
        job = client.submit([errand.source], key=key, **choices)
        if job.describe()["state"] in ("failed", "cancelled"):  # of an earlier attempt: this is another one
            job.remove()
            job = client.submit([errand.source], key=key, **choices)
        found = job.wait(look)
        (image,) = found["images"]
        if image["state"] != "done":
            raise _failure(job.id, image)
        job.save(0, errand.target)
        for doubt in image["warnings"]:
            note(f"Doubtful: expected {doubt['expected']}; got {doubt['actual']}. {doubt['remedy']}")
        return {name: str(found[name]) for name in ("task", "version", "run_id", "samples", "steps", "seed")}

    return restore


def _possible_maps(draws: Draws, possible: Sequence[str]) -> tuple[str, ...]:
    """Raises ConfigError for maps that a model cannot make."""
    wanted = set(listed(draws.maps))
    if impossible := wanted - set(possible):
        raise ConfigError(
            f"maps that this model can make: {', '.join(possible)}",
            ", ".join(sorted(impossible)),
            "Leave it out; a residual needs a dataset card that states the forward model.",
        )
    return tuple(name for name in possible if name in wanted)


def sha256_of(path: Path) -> str:
    """Of a file, hexadecimal. Raises ImageError."""
    try:
        return content_digest(path)
    except OSError as error:
        raise ImageError(
            "an image file that can be read", f"{path}: {error.strerror}", "Check the path."
        ) from error


def _is_there(target: Path, made: Mapping[str, str]) -> bool:
    """Whether an earlier attempt has made this very result."""
    try:
        return target.is_file() and read_annotations(target) == made
    except Exception:  # any: whatever lies there is no result of ours, and will be replaced by one
        return False


def _unseen(done: int, total: int) -> None:
    """Progress that nobody looks at."""


def _ended_by(stopped: Event, show: Progress, done: int, total: int) -> None:
    """Progress that ends the work when nobody waits for it any more."""
    if stopped.is_set():
        raise KeyboardInterrupt
    show(done, total)


def _failure(id: str, image: Mapping[str, Any]) -> CvdmError:
    """Why a job has no result."""
    error = image["error"]
    if error is None:
        return ServiceRefusal("a restored image", f"job {id} was {image['state']}", "Restore it again.")
    return ServiceRefusal(error["expected"], error["actual"], error["remedy"])
