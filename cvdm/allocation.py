"""Memory between uses: what a training frees and takes again with every step stays with its process.

By default glibc gives large blocks back to the system at once, so that every step maps, zeroes and faults in
its activations anew: an eighth of a step's time on a CPU, for the same peak (docs/training.md).
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""From <malloc.h>."""
LARGEST_POOLED = 32 * 2**20
"""Bytes; the most that every glibc takes. Larger blocks need it less."""
KEPT = 256 * 2**20
"""Bytes at the end of the pool that may lie idle."""


def keep_freed_memory() -> bool:
    """Set it for the process, where its C library can; returns whether. It overrules MALLOC_ variables.

    For programs that train, before they do: a library leaves the process's memory alone.
    """
    if sys.platform != "linux":
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if set_option is None:
        return False
    return bool(set_option(M_MMAP_THRESHOLD, LARGEST_POOLED)) and bool(set_option(M_TRIM_THRESHOLD, KEPT))


def free_device_memory() -> None:
    """Give what PyTorch keeps of a GPU's memory for later to other processes; nothing without a GPU."""
    import torch  # the command line asks this module for the other function, and answers without it

    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
