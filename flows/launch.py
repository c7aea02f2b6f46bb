"""A retraining started from a shell: with an orchestrator of its own where none is running."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.processes import orchestrator
from flows.settings import Settings

if TYPE_CHECKING:  # prefect and mlflow take seconds to import
    from flows.earlier import RetrainResult


def launch(
    settings: Settings,
    task: str,
    preset: str,
    *,
    init: str = "auto",
    seed: int | None = None,
    force: bool = False,
) -> RetrainResult:
    """Run the flow `retrain` in this process; at once the earlier result where nothing has changed."""
    settings.prepare_environment()
    from flows.earlier import earlier_result
    from flows.registry import Registry
    from flows.retrain import retrain
    from flows.triggers.desk import refuse_by_hand

    if not force:
        earlier = earlier_result(
            Registry.open(settings), task, preset, init=init, seed=seed, settings=settings
        )
        if earlier is not None:
            refuse_by_hand(settings, task, earlier.described())
            return earlier
    with orchestrator(settings):
        return retrain(task, preset, init=init, seed=seed, force=force)
