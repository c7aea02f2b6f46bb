"""What two processes do together, for cvdm/test_team.py; torchrun starts this file once in each of them.

    torchrun --nproc-per-node 2 tests/team_training.py DATASET PARAMS FOLDER

FOLDER/resumed.pt is a state to go on from. What each process was told is written to FOLDER/facts-RANK.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from cvdm import execution
from cvdm.__main__ import main
from cvdm.dataset import load_dataset
from cvdm.params import load_recipe
from cvdm.team import join
from cvdm.training import Step, train


def told(step: Step) -> dict:
    return {"step": step.step, "losses": step.losses, "pieces": step.pieces, "cut": step.cut}


def run(data: Path, params: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    options = ["--data", data, "--params", params, "--preset", "team", "--state", folder / "command.pt"]
    assert main(["train", *map(str, options), "-o", str(folder / "model"), "--traceback"]) == 0
    recipe, dataset, team = load_recipe(params, "team"), load_dataset(data), join("cpu")
    resumed = [told(step) for step in train(dataset, recipe, state_path=folder / "resumed.pt", team=team)]
    limit_memory_of_the_second(team.rank)
    short = [told(step) for step in train(dataset, recipe, state_path=folder / "short.pt", team=team)]
    facts = {"team": team.size, "resumed": resumed, "short": short}
    (folder / f"facts-{team.rank}.json").write_text(json.dumps(facts), encoding="utf-8")


def limit_memory_of_the_second(rank: int) -> None:
    """To one patch at once."""
    whole = execution.batch_losses

    def bounded(model, x, *rest):
        if rank == 1 and len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(model, x, *rest)

    execution.batch_losses = bounded


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:]))
