"""One request from its upload to its answer: check, choose a model, wait for the device, count.

A request has its place before its first byte is read, so the places bound the uploads on disk too. A client
that hangs up, or an answer that takes too long, ends the work wherever it is: at once while it waits for its
check, its model or the device, after the next evaluation of a tile when it runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from service.device import Device, StoppedError, Urgency
from service.doorkeeper import Caller, caller_of
from service.errors import ParameterError, StoppingError, TimeLimitError, UploadTimeError
from service.inference import Answer, check_image, restore
from service.metrics import Metrics
from service.residents import Residents
from service.schema import Limits, read_order
from service.settings import Settings
from service.upload import Upload, read_upload
from service.watching.watcher import Watcher

log = logging.getLogger(__name__)
OPENAPI = Path(__file__).with_name("openapi.yaml")


class Desk:
    """Everything that answering needs; one per process."""

    def __init__(self, settings: Settings, residents: Residents, device: Device, metrics: Metrics) -> None:
        self.residents = residents
        self.metrics = metrics
        self._settings = settings
        self._device = device
        self._limits = Limits(settings.max_samples, settings.max_steps)
        self.watcher: Watcher | None = None
        """Who looks at what was restored, once jobs are open, in whose folder it writes down what it sees."""
        self._intake = ThreadPoolExecutor(1, thread_name_prefix="intake")  # one decoded image at a time

    async def reconstruct(self, request: Request) -> Answer:
        """Restore the image of a request. Raises CvdmError, ClientDisconnect."""
        with self._device.place():
            upload = await self._received(request, self._settings.max_upload_bytes)
            try:
                if upload.paths:
                    raise ParameterError("an upload", "a path", "Only jobs take paths: POST /jobs.")
                return await self._attended(self._answer(upload, caller_of(request.scope)), request.receive)
            finally:
                await upload.close()

    @cached_property
    def openapi(self) -> dict[str, Any]:
        """What GET /openapi.json tells; read once, which takes as long as dozens of other answers."""
        document = yaml.safe_load(OPENAPI.read_text(encoding="utf-8"))
        choices = document["components"]["schemas"]["Choices"]["properties"]
        choices["samples"]["maximum"] = self._limits.max_samples
        choices["steps"]["maximum"] = self._limits.max_steps
        return dict(document)

    def models(self) -> dict[str, Any]:
        """What GET /models tells; touches neither registry nor device."""
        return self.residents.describe()

    @property
    def closed(self) -> bool:
        """Nothing is worked on any more."""
        return self._device.closed

    def close(self) -> None:
        """Stop working; unfinished requests end without an answer."""
        self._intake.shutdown(wait=False, cancel_futures=True)
        self._device.close()

    @asynccontextmanager
    async def received_job(self, request: Request) -> AsyncIterator[Upload]:
        """Lend the form of a job; its place is free again when its files are gone.

        So the places bound what lies in the temporary folder while one job after the other is looked at.
        Raises CvdmError, ClientDisconnect.
        """
        settings = self._settings
        with self._device.place():
            upload = await self._received(request, settings.max_job_upload_bytes, settings.max_job_images)
            try:
                yield upload
            finally:
                await upload.close()

    async def _received(self, request: Request, most_bytes: int, most_images: int = 1) -> Upload:
        limit = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(limit):
                return await read_upload(request, most_bytes, most_images=most_images)
        except TimeoutError as error:
            raise UploadTimeError(
                f"the whole upload within {limit:g} s", "a part of it", "Send it over a faster connection."
            ) from error

    async def _answer(self, upload: Upload, caller: Caller) -> Answer:
        started, loop = time.monotonic(), asyncio.get_running_loop()
        most = self._settings.max_pixels
        order = read_order(upload.fields, self._limits)
        if order.channels:
            raise ParameterError("an image of one channel", "a choice of channels", "POST it to /jobs.")
        self._device.check_open()  # when it closes, so does the intake
        # Shielded: a model that takes longer to load than this request lasts is there for the next one.
        resident = await asyncio.shield(self.residents.get(order.task, order.version))
        sight = resident.checkpoint.sight
        pixels = await loop.run_in_executor(self._intake, check_image, upload.image, sight, most)
        work = partial(restore, resident, upload.image, order, most, self._settings.refuse_doubtful)
        async with caller.spending(images=1, pixels=pixels):
            job = self._device.submit(work, Urgency.REQUEST)
            try:
                answer = await job.done
            finally:
                job.stop()
        seconds = time.monotonic() - started
        version = resident.version
        self.metrics.restored(version.task, version.number, seconds)
        if self.watcher is not None and self.residents.is_champion(version):
            self.watcher.look(version, caller.name, answer.sample)
        log.info(
            "restored %d bytes with %s %d in %.2f s", answer.size, version.model, version.number, seconds
        )
        return answer

    async def _attended(self, work: Coroutine[Any, Any, Answer], receive: Receive) -> Answer:
        """What `work` returns, unless the client goes away or the time is over before."""
        working = asyncio.create_task(work)
        gone = asyncio.create_task(_hung_up(receive))
        try:
            limit = self._settings.timeout_seconds
            waited: set[asyncio.Future[Any]] = {working, gone}
            await asyncio.wait(waited, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if working.cancelled():  # only closing cancels what somebody waits for
                raise StoppingError
            if working.done():
                return working.result()
            if gone.done():
                raise ClientDisconnect
            raise TimeLimitError(
                f"an answer within {limit:g} s", "none", "Ask for fewer samples or steps, or crop the image."
            )
        except StoppedError as error:
            raise StoppingError from error
        finally:
            gone.cancel()
            working.cancel()
            # Until its job is stopped. The device's thread may look at the upload once more before it sees
            # that; what it then says about a closed file nobody hears.
            await asyncio.gather(working, return_exceptions=True)


async def _hung_up(receive: Receive) -> None:
    """Return when the client closes its connection; its request has been read completely."""
    while (await receive())["type"] != "http.disconnect":
        pass
