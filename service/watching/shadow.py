"""How a challenger would do on what users send: restored by it too while the device is idle, never returned.

A share of the images of jobs, chosen by their content, is restored twice more, by the champion and by the
challenger, in the middle and with their own settings; what differs goes into a file, one line of JSON an
image, which the gate and `cvdm models` read (flows/shadow.py). Without the truth, which nobody has here, this
shows no quality: it shows a challenger that is less sure, contradicts what was acquired, or departs from the
champion on images unlike those of the test.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from cvdm.errors import CvdmError, ImageError
from cvdm.observation import Observation
from cvdm.optics import forward_residual
from cvdm.posterior import Reconstruction, reconstruct
from cvdm.storage import replacing
from service.device import Device, Progress, StoppedError
from service.errors import StoppingError
from service.loading import Resident, Version
from service.residents import Residents

log = logging.getLogger(__name__)
SIDE = 512
"""Pixels along a side of what is restored."""
DIGITS = 8
MOST_BYTES = 16 * 2**20
"""Of the record; beyond, its older half goes."""


@dataclass(frozen=True)
class Comparison:
    """One image. Widths are means of calibrated intervals, as shares of the champion's intensity range."""

    at: str
    """ISO 8601 with offset."""
    task: str
    champion: int
    champion_run: str
    challenger: int
    challenger_run: str
    owner: str
    input_sha256: str
    champion_width: float
    challenger_width: float
    difference: float
    """Root mean square of the difference of both reconstructions, as a share of that range."""
    champion_residual: float | None
    """Forward-model residual, where both models know their optics."""
    challenger_residual: float | None


class Shadow:
    """One per process; used from its event loop."""

    def __init__(
        self,
        share: float,
        residents: Residents,
        device: Device,
        record: Path,
        on_compared: Callable[[str], None] = lambda task: None,
    ) -> None:
        """share: of the images, 0 to 1. record: the file. on_compared: told the task."""
        self._share, self._residents, self._device, self._record = share, residents, device, record
        self._on_compared = on_compared
        self._running: asyncio.Task[None] | None = None

    def consider(self, champion: Resident, owner: str, input_sha256: str, seen: Observation) -> None:
        """An image of a job that a champion has restored.

        One is compared at a time; those that come meanwhile are not.
        """
        if int(input_sha256[:DIGITS], 16) >= self._share * 16**DIGITS:
            return
        challenger = self._residents.challenger(champion.version.task)
        if challenger is None or (self._running is not None and not self._running.done()):
            return
        work = self._compare(champion, challenger, owner, input_sha256, seen)
        self._running = asyncio.create_task(work)

    async def close(self) -> None:
        """After the device is closed."""
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    async def _compare(
        self, champion: Resident, named: Version, owner: str, input_sha256: str, seen: Observation
    ) -> None:
        try:
            challenger = await self._residents.get(named.task, named.number)
            part = seen.cropped(seen.middle(SIDE))
            work = partial(compared, champion, challenger, owner, input_sha256, part)
            found = await self._device.submit_shadow(work).done
            await asyncio.to_thread(self._write, found)
            self._on_compared(named.task)
        except (StoppedError, StoppingError, asyncio.CancelledError):
            pass  # the service is being stopped
        except CvdmError as error:
            log.info("%s was not compared with the champion: %s", named.label, error)
        except Exception:  # any: nobody's image depends on it, and the log shows it
            log.exception("%s could not be compared with the champion", named.label)

    def _write(self, comparison: Comparison) -> None:
        if self._record.is_file() and self._record.stat().st_size > MOST_BYTES:
            lines = self._record.read_text(encoding="utf-8").splitlines(keepends=True)
            with replacing(self._record) as temporary:
                temporary.write_text("".join(lines[len(lines) // 2 :]), encoding="utf-8")
        with self._record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(comparison), allow_nan=False) + "\n")


def compared(
    champion: Resident,
    challenger: Resident,
    owner: str,
    input_sha256: str,
    seen: Observation,
    progress: Progress,
) -> Comparison:
    """Restore an image by both, each with its own settings. Raises ImageError."""
    if champion.checkpoint.sight != challenger.checkpoint.sight:
        raise ImageError(
            "a challenger that sees what the champion sees",
            "one of other channels, context or factor",
            "Give such a model a task of its own.",
        )
    ours, theirs = (reconstruct(one.checkpoint, seen, progress=progress) for one in (champion, challenger))
    span = 2 * champion.checkpoint.normalisation.scale_of(seen.centres[0]).half_range
    models = [champion.checkpoint.record.forward_model, challenger.checkpoint.record.forward_model]
    residuals: list[float | None] = [None, None]
    if models[0] is not None and models[0] == models[1]:
        residuals = [
            forward_residual(one.mean, np.asarray(seen.restored[:, :]), models[0]) for one in (ours, theirs)
        ]
    return Comparison(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        task=champion.version.task,
        champion=champion.version.number,
        champion_run=champion.version.run_id,
        challenger=challenger.version.number,
        challenger_run=challenger.version.run_id,
        owner=owner,
        input_sha256=input_sha256,
        champion_width=_width(ours) / span,
        challenger_width=_width(theirs) / span,
        difference=float(np.sqrt(np.mean((ours.mean - theirs.mean) ** 2))) / span,
        champion_residual=residuals[0],
        challenger_residual=residuals[1],
    )


def _width(found: Reconstruction) -> float:
    return float(np.mean(found.upper - found.lower))
