"""One image restored from a shell: by a checkpoint directory, a registered version, or a running service."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cvdm.config import SamplingConfig
from cvdm.errors import CvdmError, ImageError
from cvdm.storage import replacing
from flows.progress import progress_bar
from flows.servers import waiting_line
from flows.settings import Settings

HTTP_SECONDS = 3600.0


class ServiceRefusal(CvdmError):
    """The service's own message, or that there is none."""


@dataclass(frozen=True)
class Draws:
    """What may be chosen for one reconstruction; None leaves it to the model."""

    samples: int | None = None
    steps: int | None = None
    seed: int | None = None

    def applied_to(self, default: SamplingConfig) -> SamplingConfig:
        """The model's own sampling with these choices in it."""
        return replace(
            default,
            samples=default.samples if self.samples is None else self.samples,
            steps=default.steps if self.steps is None else self.steps,
            seed=default.seed if self.seed is None else self.seed,
        )


def restore_by_checkpoint(
    image: Path,
    output: Path,
    directory: Path,
    draws: Draws,
    origin: dict[str, str] | None = None,
    *,
    settings: Settings | None = None,
) -> dict[str, str]:
    """Restore with a verified checkpoint directory; returns what the file's metadata tell.

    settings: names the device; None reads those of this process. The result has a pixel size where the
    input has one.
    """
    from cvdm.checkpoint import load_checkpoint, verify_golden
    from cvdm.restoration import restore_file
    from flows.job import chosen_device

    device = chosen_device((settings or Settings.read()).device)
    checkpoint = load_checkpoint(directory, device=device)
    verify_golden(directory, checkpoint)
    sampling = draws.applied_to(checkpoint.recipe.sampling)
    annotations = {**checkpoint.annotations(sampling), **(origin or {})}
    with progress_bar("reconstruct", "tile") as progress:
        restore_file(checkpoint, image, output, sampling, annotations=annotations, progress=progress)
    return annotations


def restore_by_version(
    image: Path, output: Path, task: str, version: str, draws: Draws, settings: Settings
) -> dict[str, str]:
    """Restore with a registered version (number or alias), as `restore_by_checkpoint`."""
    settings.prepare_environment()
    from flows.registry import Registry, model_name

    models = Registry.open(settings).models
    found = models.version(task, version)
    origin = {"model": model_name(task), "version": str(found.number), "run_id": found.run_id}
    with tempfile.TemporaryDirectory(prefix="cvdm-reconstruct-") as scratch:
        directory = models.download(task, found.number, Path(scratch) / "checkpoint")
        return restore_by_checkpoint(image, output, directory, draws, origin, settings=settings)


def restore_by_service(image: Path, output: Path, url: str, fields: dict[str, Any]) -> dict[str, str]:
    """Have a service restore; returns the x-cvdm-* headers of its reply, without the prefix."""
    import httpx

    refuse_same_file(image, output)
    try:
        content = image.read_bytes()
    except OSError as error:
        raise ImageError(
            "an image file that can be read", f"{image}: {error.strerror}", "Check the path."
        ) from error
    data = {name: str(value) for name, value in fields.items() if value is not None}
    address = f"{url.rstrip('/')}/reconstruct"
    with waiting_line(f"reconstruct {image.name}"):
        try:
            reply = httpx.post(
                address, files={"image": (image.name, content)}, data=data, timeout=HTTP_SECONDS
            )
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ServiceRefusal(
                f"a service at {address}", reason, "Start one with `cvdm up` or `cvdm serve`."
            ) from error
    if not reply.is_success:
        raise _refusal(reply)
    with replacing(output) as temporary:
        temporary.write_bytes(reply.content)
    prefix = "x-cvdm-"
    return {
        name.removeprefix(prefix): value for name, value in reply.headers.items() if name.startswith(prefix)
    }


def refuse_same_file(image: Path, output: Path) -> None:
    """Raise ImageError where the result would replace the input."""
    if output.exists() and image.exists() and output.samefile(image):
        raise ImageError("an output other than the input", str(output), "Choose another -o.")


def _refusal(reply: Any) -> ServiceRefusal:
    try:
        body = reply.json()
        return ServiceRefusal(body["expected"], body["actual"], body["remedy"])
    except (ValueError, KeyError, TypeError):
        text = " ".join(reply.text.split())[:200]
        return ServiceRefusal(
            "an image from the service", f"{reply.status_code}: {text}", "Check the address."
        )
