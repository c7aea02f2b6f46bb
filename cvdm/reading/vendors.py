"""Zeiss CZI, Nikon ND2 and Leica LIF files through bioio, an optional extra.

bioio's readers name the axes T, C, Z, Y, X in this order and translate the metadata to OME. They open files by
their path; what is in an upload cannot be read here.

Not covered: several scenes or mosaic tiles in one file, colour samples.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from cvdm.errors import ImageError
from cvdm.reading.axes import Naming
from cvdm.reading.ome import ome_metadata, ome_nodes
from cvdm.reading.stack import Metadata, Origin, Stack, check_real, check_size, full_range_of

READERS = {
    b"ZISRAWFILE": ("CZI", "bioio_czi"),
    b"\xda\xce\xbe\x0a": ("ND2", "bioio_nd2"),
    b"\x70\x00\x00\x00": ("LIF", "bioio_lif"),
}


def is_vendor(head: bytes) -> bool:
    """True where the first bytes are those of a microscope maker's format."""
    return head.startswith(tuple(READERS))


def open_vendor(origin: Origin, *, max_pixels: int, naming: Naming) -> Stack:
    raise NotImplementedError
