"""Several processes train one model: real ones, started by torchrun, on the CPU."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml
from specimens import TINY_RECIPE

from cvdm.checkpoint import load_checkpoint, verify_golden
from cvdm.dataset import load_dataset
from cvdm.errors import TrainingError
from cvdm.team import Team, join
from cvdm.training import train
from cvdm.training_state import read_state

TESTS = Path(__file__).parents[1]
RECIPE = replace(TINY_RECIPE, training=replace(TINY_RECIPE.training, batch=5))


@pytest.fixture(scope="module")
def together(cells_dataset, tmp_path_factory):
    """The folder in which two processes trained, after one process alone did the same."""
    folder = tmp_path_factory.mktemp("team")
    (folder / "params.yaml").write_text(yaml.safe_dump({"presets": {"team": asdict(RECIPE)}}))
    dataset = load_dataset(cells_dataset)
    list(islice(train(dataset, RECIPE, state_path=folder / "resumed.pt"), 2))
    (folder / "alone.json").write_text(
        json.dumps([step.losses for step in train(dataset, RECIPE, state_path=folder / "alone.pt")])
    )
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [str(TESTS / "team_training.py"), str(cells_dataset), str(folder / "params.yaml"), str(folder)]
    subprocess.run([*torchrun, *script], cwd=TESTS.parent, check=True, timeout=240)
    return folder


def facts(folder, rank):
    return json.loads((folder / f"facts-{rank}.json").read_text())


@pytest.mark.parametrize("name", ["command", "resumed", "short"])
def test_two_processes_come_to_the_weights_of_one(together, name):
    """By the command, going on from a state of one process, and with memory short on one of them."""
    alone, found = read_state(together / "alone.pt"), read_state(together / f"{name}.pt")
    assert found["step"] == alone["step"] == RECIPE.training.steps
    for name, value in alone["average"].items():
        torch.testing.assert_close(found["average"][name], value, rtol=1e-3, atol=1e-4)
    assert found["best"]["crps"] == pytest.approx(alone["best"]["crps"], rel=1e-3)


def test_the_losses_are_those_of_the_whole_batch(together):
    """Five patches on two processes, an uneven share each, give every named loss of one process."""
    alone = json.loads((together / "alone.json").read_text())
    told = facts(together, 0)["resumed"]
    assert facts(together, 0)["team"] == 2
    assert [one["step"] for one in told] == [3, 4]
    for one, losses in zip(told, alone[2:], strict=True):
        assert one["losses"] == pytest.approx(losses, rel=1e-3, abs=1e-5)


def test_the_leader_alone_is_told(together):
    """The second process yields nothing."""
    assert facts(together, 1)["resumed"] == facts(together, 1)["short"] == []


def test_want_of_memory_on_one_process_is_known_to_all(together):
    """The leader, whose memory is enough, tells of it and keeps it in the state."""
    told = facts(together, 0)["short"]
    assert [one["pieces"] for one in told] == [3, 3, 3, 3]
    assert [one["cut"] for one in told] == [True, False, False, False]
    assert read_state(together / "short.pt")["pieces"] == told[0]["pieces"]


def test_the_command_writes_one_model_that_proves_itself(together):
    """What torchrun's processes leave is a calibrated checkpoint."""
    checkpoint = load_checkpoint(together / "model")
    verify_golden(together / "model", checkpoint)


def test_a_process_that_torchrun_did_not_start_is_alone():
    """It leads, has the whole batch and is told what it says."""
    team = join("cpu")
    assert team == Team("cpu") and team.leads and team.share(7) == (0, 7) and team.told("x") == "x"


class Third(Team):
    """One of three, as far as shares go."""

    size, rank = 3, 2


def test_shares_are_the_batch():
    """Every patch is in exactly one share, whatever the sizes, and no share is empty."""
    for size in range(1, 9):
        for count in range(size, 20):
            teams = [type("One", (Team,), {"size": size, "rank": rank})() for rank in range(size)]
            taken = [at for team in teams for at in range(*team.share(count))]
            assert taken == list(range(count)) and all(t.share(count)[0] < t.share(count)[1] for t in teams)


def test_fewer_patches_than_processes_are_refused(cells_dataset, tmp_path):
    """A process without a patch would have no gradient."""
    with pytest.raises(TrainingError, match=r"training\.batch.*3 processes"):
        next(train(load_dataset(cells_dataset), TINY_RECIPE, state_path=tmp_path / "s.pt", team=Third()))
