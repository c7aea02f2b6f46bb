"""What the platform remembers: runs, their evidence, and versions of models with their aliases.

The only place of `flows/` that imports MLflow. Every write names its run or version; the fluent interface,
whose active run depends on the thread, is not used. MLflow takes seconds to import: import this package
inside the command that needs it.
"""

from flows.registry.connection import AwayError, RegistryError
from flows.registry.models import CHAMPION, PREVIOUS, Version, model_name
from flows.registry.store import Registry
from flows.registry.tracking import FAILURE, LONGEST_VALUE, MACHINE, RESULT, Row, Run, Runs

__all__ = [
    "CHAMPION",
    "FAILURE",
    "LONGEST_VALUE",
    "MACHINE",
    "PREVIOUS",
    "RESULT",
    "AwayError",
    "Registry",
    "RegistryError",
    "Row",
    "Run",
    "Runs",
    "Version",
    "model_name",
]
