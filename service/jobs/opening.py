"""Until the folder of jobs can be opened: tried again and again, while everything else is served.

Imports nothing heavy, because the process that supervises the service imports it too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cvdm.errors import CvdmError
from service.errors import JobsError

if TYPE_CHECKING:
    from service.jobs.desk import JobDesk

log = logging.getLogger(__name__)
PAUSE_SECONDS = 2.0
"""Between two attempts."""


async def opened(
    open_jobs: Callable[[], JobDesk], folder: Path, refuse: Callable[[CvdmError], None]
) -> JobDesk:
    """Who answers for jobs, as soon as their folder can be opened.

    refuse: told why nobody does until then, which is what clients are answered.
    """
    refuse(JobsError("a folder for jobs that is open", "one that is being opened", "Ask again in a moment."))
    said = ""
    while True:
        try:
            return await asyncio.to_thread(open_jobs)
        except Exception as error:  # any: a full disk and a damaged table may be mended while this runs
            reason = error if isinstance(error, CvdmError) else _unusable(folder, error)
            refuse(reason)
            if str(reason) != said:
                log.error("no jobs yet: %s", reason, exc_info=reason is not error)
            said = str(reason)
            await asyncio.sleep(PAUSE_SECONDS)


def _unusable(folder: Path, error: Exception) -> JobsError:
    return JobsError(
        f"a folder for jobs that can be read and written, {folder}",
        f"{type(error).__name__}: {error}",
        "Mend it, or restore it from a backup; it is tried again every few seconds.",
    )
