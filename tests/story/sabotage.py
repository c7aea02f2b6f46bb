"""A candidate that nobody should serve: `python -m story.sabotage TASK PRESET` retrains on shuffled pairs.

Every input of a training batch gets the target of another one. Nothing else is touched: validation,
calibration, tests and gate are the platform's own. Prints the JSON of `cvdm retrain --json`.
"""

from __future__ import annotations

import sys

from torch import Tensor

from cvdm.patches import PatchSource
from flows.launch import launch
from flows.plain_json import plain_json
from flows.settings import Settings

honest = PatchSource.batch_at


def shuffled(source: PatchSource, step: int) -> tuple[Tensor, Tensor]:
    low, high = honest(source, step)
    return low, high.roll(1, dims=0)


def main() -> None:
    task, preset = sys.argv[1:3]
    PatchSource.batch_at = shuffled  # type: ignore[method-assign]
    result = launch(Settings.read(), task, preset, init="scratch")
    sys.stdout.write(plain_json(result.as_json()) + "\n")


if __name__ == "__main__":
    main()
