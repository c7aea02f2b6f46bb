"""Memory that is freed stays with the process, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LOOP = """
import resource, sys
import numpy as np
from cvdm.allocation import keep_freed_memory
set_here = sys.argv[1] == "keep" and keep_freed_memory()
def activations():
    return [np.ones(2**22, np.float32) for _ in range(4)]  # 16 MiB each
activations()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    activations()
print(set_here, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> tuple[bool, int]:
    """Whether memory is kept, and the pages that ten rounds of 64 MiB had to map."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", LOOP, way]
    done = subprocess.run(command, env=clean, check=True, capture_output=True, text=True)
    kept, pages = done.stdout.split()
    return kept == "True", int(pages)


@pytest.mark.skipif(sys.platform != "linux", reason="an allocator of its own")
def test_what_a_step_frees_the_next_one_takes_without_mapping_it_anew():
    """Ten rounds of 64 MiB map up to 163 840 pages without it, a tenth of what that came to with it."""
    _, without = faults("leave")
    kept, with_it = faults("keep")
    assert kept and with_it < without / 10
