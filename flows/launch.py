"""A retraining started from a shell: with an orchestrator of its own where none is running."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvdm.errors import ConfigError
from cvdm.params import load_recipe
from flows.processes import orchestrator
from flows.settings import Settings
from flows.start import require_choice

if TYPE_CHECKING:  # prefect and mlflow take seconds to import
    from flows.earlier import RetrainResult


def launch(
    settings: Settings,
    task: str,
    preset: str,
    *,
    init: str = "auto",
    seed: int | None = None,
    data_version: str | None = None,
    force: bool = False,
) -> RetrainResult:
    """Run the flow `retrain` in this process; at once the earlier result where nothing has changed.

    Raises ConfigError for a wrong task, preset or start before anything is started.
    """
    _require_data(settings, task)
    load_recipe(settings.params_file, preset)
    require_choice(init)
    if data_version is not None:
        from flows.history import require_version

        require_version(settings, data_version)
    with orchestrator(settings) as ready:
        from cvdm.progress import note
        from flows.earlier import earlier_result
        from flows.outcome import outcome_of
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
        with ready():
            run = outcome_of(retrain, note)
            return run(task, preset, init=init, seed=seed, data_version=data_version, force=force)


def _require_data(settings: Settings, task: str) -> None:
    """Raise ConfigError for a task that has no data here."""
    if not (settings.data_dir / task).is_dir():
        raise ConfigError(
            f"a task with data: {', '.join(settings.known_tasks()) or 'none is here yet'}",
            f"'{task}'",
            "Correct its spelling, or bring its data with `cvdm ingest` or `dvc pull`.",
        )
