"""Fine-tuning: starts at the base's weights, takes fewer and smaller steps, resumes, and says what it is."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch
from specimens import TINY_RECIPE, cells, make_checkpoint

from cvdm.__main__ import main
from cvdm.build import build_checkpoint
from cvdm.checkpoint import WEIGHTS, file_digest, load_checkpoint, save_checkpoint
from cvdm.config import NetworkConfig
from cvdm.dataset import load_dataset
from cvdm.errors import CheckpointError, ConfigError, TrainingError
from cvdm.fine_tuning import read_base
from cvdm.training import train
from cvdm.training_state import TrainingState, read_best, read_state

RECIPE = replace(TINY_RECIPE, training=replace(TINY_RECIPE.training, steps=16)).for_fine_tuning()


@pytest.fixture(scope="module")
def dataset(cells_dataset):
    return load_dataset(cells_dataset)


@pytest.fixture
def base(tiny_checkpoint_dir):
    return read_base(tiny_checkpoint_dir, TINY_RECIPE.model)


def test_it_starts_at_the_base_and_not_at_random(base):
    """Model and moving average both; another seed changes nothing."""
    for seed in (0, 1):
        state = TrainingState(RECIPE.with_seed(seed), "cpu", base)
        for network in (state.model, state.average):
            found = network.state_dict()
            assert all(torch.equal(found[name], value) for name, value in base.weights.items())
    assert base.task == "test-cells" and len(base.digest) == 64


def test_it_takes_a_share_of_the_steps_at_a_share_of_the_rate():
    """As the recipe says, and never no step at all."""
    own = replace(TINY_RECIPE.training, steps=1000, learning_rate=0.01, fine_tuning_steps=0.2)
    tuned = replace(TINY_RECIPE, training=replace(own, fine_tuning_rate=0.5)).for_fine_tuning().training
    assert (tuned.steps, tuned.learning_rate) == (200, 0.005)
    assert replace(TINY_RECIPE, training=replace(own, steps=1)).for_fine_tuning().training.steps == 1
    with pytest.raises(ConfigError, match="fine_tuning_rate above 0"):
        replace(own, fine_tuning_rate=0.0)


def test_interrupted_fine_tuning_ends_with_the_same_weights(dataset, base, tmp_path):
    """Bit for bit those of one that was not interrupted; they are neither the base's nor from scratch."""
    whole, broken, scratch = (tmp_path / f"{name}.pt" for name in ("whole", "broken", "scratch"))
    assert len(list(train(dataset, RECIPE, state_path=whole, base=base))) == 4
    run = train(dataset, RECIPE, state_path=broken, base=base)
    list(islice(run, 2))
    run.close()
    list(train(dataset, RECIPE, state_path=broken, base=base))
    list(train(dataset, RECIPE, state_path=scratch))
    ours, again, other = (read_state(path)["average"] for path in (whole, broken, scratch))
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    assert any(not torch.equal(ours[name], other[name]) for name in ours)
    assert any(not torch.equal(ours[name], base.weights[name]) for name in ours)


def test_a_state_from_elsewhere_is_not_continued(dataset, base, tmp_path):
    """From scratch and from a base are two trainings, and so are two bases."""
    state = tmp_path / "state.pt"
    list(train(dataset, RECIPE, state_path=state, base=base))
    for other in (None, replace(base, digest="0" * 64)):
        with pytest.raises(TrainingError, match="another training"):
            next(train(dataset, RECIPE, state_path=state, base=other))


def test_a_base_of_another_size_or_damaged_is_refused(tiny_checkpoint_dir):
    """With both sizes, and before anything is trained."""
    wide = replace(TINY_RECIPE.model, mean=NetworkConfig(width=8, levels=2))
    with pytest.raises(ConfigError, match=r"got mean: \{width: 4"):
        read_base(tiny_checkpoint_dir, wide)
    (tiny_checkpoint_dir / WEIGHTS).write_bytes(b"")
    with pytest.raises(CheckpointError):
        read_base(tiny_checkpoint_dir, TINY_RECIPE.model)


def test_the_checkpoint_names_its_base(dataset, base, tmp_path):
    """By the digest of its weights; one from scratch names none."""
    state = tmp_path / "state.pt"
    list(train(dataset, RECIPE, state_path=state, base=base))
    facts = {"git_commit": None, "created": "2026-01-01T00:00:00+00:00"}
    tuned = build_checkpoint(dataset, RECIPE, state, base=base, **facts)
    assert tuned.record.base_digest == base.digest
    assert build_checkpoint(dataset, RECIPE, state, **facts).record.base_digest is None
    assert tuned.record.steps_trained == read_best(state).step


def test_from_the_command_line(cells_dataset, tmp_path, capsys):
    """`train --base DIR` writes a checkpoint that names the base; a wrong base is one sentence."""
    import numpy as np
    import yaml

    base = tmp_path / "base"
    save_checkpoint(base, make_checkpoint(), cells(np.random.default_rng(7), 32))
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({"presets": {"tiny": TINY_RECIPE.as_dict()}}))
    call = ["train", "--data", str(cells_dataset), "--params", str(params), "--preset", "tiny"]
    assert main([*call, "--base", str(base), "-o", str(tmp_path / "tuned")]) == 0
    record = load_checkpoint(tmp_path / "tuned").record
    assert (record.base_digest, record.steps_trained) == (file_digest(base / WEIGHTS), 1)
    assert main([*call, "--base", str(tmp_path), "-o", str(tmp_path / "none")]) == 1
    assert "a checkpoint directory" in capsys.readouterr().err and not (tmp_path / "none").exists()
