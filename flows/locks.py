"""Lock files: the operating system drops a lock when its process ends, however it ends."""

from __future__ import annotations

import fcntl
from typing import TextIO


def taken(file: TextIO, *, shared: bool = False) -> bool:
    """Take the lock of an open file, if nobody else holds it; returns whether it is held now.

    shared: together with others who share it; nobody gets it alone meanwhile.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
