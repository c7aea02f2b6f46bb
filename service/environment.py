"""What the libraries of the service's processes are told by their environment.

Most of it is read when a process or a library starts, so the supervising process sets it for its worker.
"""

import os
import sys

DEFAULTS = {
    # no telemetry to anybody
    "BENTOML_DO_NOT_TRACK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    # a registry that is down is reported within seconds, and asked again at the next look
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Waiting threads sleep soon: when they spin on the cores of a retraining, both take twice as long. Not
    # set for the retraining itself, which on its own loses an eighth of its speed by it.
    "GOMP_SPINCOUNT": "1000",
    # ... but no sooner: libgomp, which PyTorch brings on Linux, spins at most 100 times once a process has
    # more of its threads than cores, or 1000 times where waiting is active; and every thread of the device
    # that ever computed has a team of them. The difference is a seventh of the speed.
    "OMP_WAIT_POLICY": "active",
    # NumPy has little to multiply here, and its second thread spins on after each time. Costs a fifteenth.
    "OPENBLAS_NUM_THREADS": "1",
    # One pool of memory for all threads: what one has freed, another one uses again. Its blocks stay with the
    # process, up to its peak; else every evaluation maps and zeroes its activations anew, a fifth of its time
    # on a CPU. 32 MiB is the most that every glibc takes for the second; larger blocks need it less.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}
if sys.platform != "linux":
    # PyTorch brings LLVM's OpenMP there, which would take it for leave to spin for ever. So would one of
    # conda's on Linux: set it to passive there.
    del DEFAULTS["OMP_WAIT_POLICY"]


def set_defaults() -> bool:
    """Set what whoever started this process left open; returns whether that was anything."""
    open_ones = DEFAULTS.keys() - os.environ.keys()
    os.environ.update({name: DEFAULTS[name] for name in open_ones})
    return bool(open_ones)
