"""Training: learns, resumes exactly, refuses what it cannot continue."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from specimens import TINY_RECIPE, make_dataset

from cvdm import execution, validation
from cvdm.config import SCHEDULES, ModelConfig, NetworkConfig, Recipe, ScheduleConfig, TrainingConfig
from cvdm.dataset import load_dataset
from cvdm.errors import CheckpointError, DatasetError, TrainingError
from cvdm.gradients import Batch, accumulate_gradient, diffusion_times, is_out_of_memory
from cvdm.losses import batch_losses
from cvdm.model import CVDM, signal_from_velocity, velocity_between
from cvdm.patches import PatchSource
from cvdm.training import diverged, learning_rate_at, train, training_normalisation
from cvdm.training_state import TrainingState, read_best, read_state

SMALL = NetworkConfig(width=8, levels=2)


@pytest.fixture(scope="module")
def dataset(cells_dataset):
    return load_dataset(cells_dataset)


def weights(path):
    return read_state(path)["average"]


def test_interrupted_and_resumed_training_ends_with_the_same_weights(dataset, tmp_path):
    """Stopping after any step and continuing gives bit for bit the weights of an uninterrupted run."""
    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    list(train(dataset, TINY_RECIPE, state_path=whole))
    for steps_before_the_interruption in (1, 2):
        run = train(dataset, TINY_RECIPE, state_path=broken)
        for _ in range(steps_before_the_interruption):
            next(run)
        run.close()
    resumed = list(train(dataset, TINY_RECIPE, state_path=broken))
    assert resumed[0].step == 4 and len(resumed) == 1
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(broken)[name]), name
    first, second = read_state(whole)["optimiser"], read_state(broken)["optimiser"]
    assert all(
        torch.equal(first["state"][k]["exp_avg"], second["state"][k]["exp_avg"]) for k in first["state"]
    )


def test_a_finished_training_has_nothing_left_to_do(dataset, tmp_path):
    """Running the same training again yields no step."""
    state = tmp_path / "state.pt"
    assert len(list(train(dataset, TINY_RECIPE, state_path=state))) == 4
    assert list(train(dataset, TINY_RECIPE, state_path=state)) == []


def test_another_recipe_does_not_continue_a_state(dataset, tmp_path):
    """A state of another seed, model size or dataset is refused, and left as it was."""
    state = tmp_path / "state.pt"
    list(train(dataset, TINY_RECIPE, state_path=state))
    before = state.read_bytes()
    with pytest.raises(TrainingError, match="Delete it to start anew"):
        next(train(dataset, TINY_RECIPE.with_seed(5), state_path=state))
    other = load_dataset(make_dataset(tmp_path / "other", fields=12, size=64))
    with pytest.raises(TrainingError, match="same data"):
        next(train(other, TINY_RECIPE, state_path=state))
    assert state.read_bytes() == before


def test_a_damaged_state_is_named(dataset, tmp_path):
    """A truncated state file gives a remedy, not an unpickling error."""
    state = tmp_path / "state.pt"
    list(train(dataset, TINY_RECIPE, state_path=state))
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="Delete it"):
        next(train(dataset, TINY_RECIPE, state_path=state))


def test_different_seeds_give_different_models(dataset, tmp_path):
    """The seed reaches weights and data order."""
    for seed in (0, 1):
        list(train(dataset, TINY_RECIPE.with_seed(seed), state_path=tmp_path / f"{seed}.pt"))
    one, other = weights(tmp_path / "0.pt"), weights(tmp_path / "1.pt")
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_schedule_trains(dataset, tmp_path, kind):
    """A short training lowers the regression error under each schedule, and every named loss is finite."""
    recipe = Recipe(
        ModelConfig(SMALL, SMALL, ScheduleConfig(kind=kind, width=4)),
        TrainingConfig(steps=100, batch=4, patch=32, warmup=5, learning_rate=1e-2, validate_every=100),
        replace(TINY_RECIPE.sampling, steps=2),
    )
    steps = list(train(dataset, recipe, state_path=tmp_path / "state.pt"))
    assert all(np.isfinite(list(step.losses.values())).all() for step in steps)
    first, last = (np.mean([s.losses["mean"] for s in part]) for part in (steps[:10], steps[-10:]))
    assert last < 0.7 * first


def test_a_learned_schedule_moves(dataset, tmp_path):
    """Training changes the schedule's network from where its seed put it."""
    start = TrainingState(TINY_RECIPE, "cpu").model.schedule.state_dict()
    list(train(dataset, TINY_RECIPE, state_path=tmp_path / "state.pt"))
    end = read_state(tmp_path / "state.pt")["model"]
    moved = [name for name, value in start.items() if not torch.equal(value, end[f"schedule.{name}"])]
    assert moved and {name for name, _ in CVDM(TINY_RECIPE.model).schedule.named_parameters()} >= set(moved)


def test_velocity_signal_and_noise_are_one_quantity():
    """With the true v, the signal is the true one, and v turns with the angle as the derivative of z_t."""
    torch.manual_seed(0)
    z, eps = torch.randn(2, 1, 8, 8).double(), torch.randn(2, 1, 8, 8).double()
    schedule = CVDM(TINY_RECIPE.model).double().schedule
    point = schedule.at(torch.full((2, 1, 1, 1), 0.3).double(), schedule.paths(z))
    z_t = point.gamma.sqrt() * z + point.noise_power.sqrt() * eps
    v = velocity_between(z, eps, point)
    torch.testing.assert_close(signal_from_velocity(v, z_t, point), z)
    h = 1e-6
    turned = torch.cos(point.angle + h) * z + torch.sin(point.angle + h) * eps
    torch.testing.assert_close((turned - z_t) / h, v, rtol=1e-4, atol=1e-4)


def test_diffusion_does_not_pull_on_the_regression():
    """Stopped gradients: the denoising error moves neither the regression mean nor the residual scale."""
    torch.manual_seed(0)
    model = CVDM(TINY_RECIPE.model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, y = torch.randn(2, 1, 16, 16), torch.randn(2, 1, 16, 16)
    batch_losses(model, x, y, torch.full((2, 1, 1, 1), 0.4), torch.randn_like(x)).denoising.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.mean_network.parameters())
    assert all(p.grad is None or not p.grad.any() for p in model.scale_network.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.denoiser.parameters())


def test_diverged_training_stops_with_a_diagnosis(dataset, tmp_path):
    """A learning rate far too high ends in a named error before a broken state is written."""
    recipe = replace(TINY_RECIPE, training=replace(TINY_RECIPE.training, learning_rate=1e30, steps=50))
    with pytest.raises(TrainingError, match="learning_rate"):
        list(train(dataset, recipe, state_path=tmp_path / "state.pt"))


def test_a_gradient_that_is_not_finite_changes_no_weight(dataset, tmp_path, monkeypatch):
    """Planted: the loss is finite, its gradient is not; the state on disk stays the last good one."""
    state = tmp_path / "state.pt"
    run = train(dataset, TINY_RECIPE, state_path=state)
    next(run)
    before = state.read_bytes()
    monkeypatch.setattr(
        "torch.nn.utils.clip_grad_norm_", lambda *_args, **_kwargs: torch.tensor(float("nan"))
    )
    with pytest.raises(TrainingError, match="finite gradient"):
        next(run)
    assert state.read_bytes() == before


def test_a_validation_that_is_not_finite_stops_training(dataset, tmp_path, monkeypatch):
    """Planted: the averaged weights restore nothing; they are never taken for the best."""
    planned_scores(monkeypatch, [0.5, float("nan")])
    recipe = with_training(validate_every=1)
    with pytest.raises(TrainingError, match="finite validation"):
        list(train(dataset, recipe, state_path=tmp_path / "state.pt"))
    assert read_best(tmp_path / "state.pt").step == 1


def test_images_far_out_of_range_are_suspected_first():
    """A patch at a thousand half ranges, not the learning rate, is what the diagnosis names."""
    x = torch.full((1, 1, 4, 4), 1000.0)
    told = str(diverged("loss", {"mean": float("inf")}, 7, 0.01, Batch.drawn(x, x, 0, 0)))
    assert "1e+03 half ranges" in told and "cvdm validate" in told and "Lower" not in told


def planned_scores(monkeypatch, crps: list[float]) -> None:
    """Let validations score as planned, with the true pictures."""
    real, planned = validation.Validator.validate, iter(crps)
    monkeypatch.setattr(
        validation.Validator, "validate", lambda self, model: replace(real(self, model), crps=next(planned))
    )


def with_training(**changes) -> Recipe:
    return replace(TINY_RECIPE, training=replace(TINY_RECIPE.training, **changes))


def test_the_weights_that_validated_best_come_out(dataset, tmp_path, monkeypatch):
    """Of four validations the second is the best: its averaged weights are kept, not the last ones."""
    planned_scores(monkeypatch, [0.5, 0.2, 0.3, 0.2])
    seen = {}
    state = tmp_path / "state.pt"
    for step in train(dataset, with_training(validate_every=1), state_path=state):
        seen[step.step] = weights(state)
    best = read_best(state)
    assert (best.step, best.crps) == (2, 0.2)
    for name, value in best.weights.items():
        assert torch.equal(value, seen[2][name]), name
    assert any(not torch.equal(value, seen[4][name]) for name, value in best.weights.items())


def test_training_ends_early_without_a_better_validation(dataset, tmp_path, monkeypatch):
    """Two validations in a row without a gain end it, with the reason; run again, it stays ended."""
    planned_scores(monkeypatch, [0.5, 0.4, 0.41, 0.4, 0.1])
    recipe, state = with_training(validate_every=1, patience=2, steps=20), tmp_path / "state.pt"
    steps = list(train(dataset, recipe, state_path=state))
    assert [step.ended is None for step in steps] == [True, True, True, False]
    assert "since step 2 (CRPS 0.40000)" in steps[-1].ended
    assert steps[-1].news[-1] == f"training ends: {steps[-1].ended}"
    assert list(train(dataset, recipe, state_path=state)) == []


def test_patience_is_counted_over_interruptions(dataset, tmp_path, monkeypatch):
    """Stopped after every step, training ends at the same one."""
    planned_scores(monkeypatch, [0.5, 0.6, 0.7, 0.1])
    recipe, state = with_training(validate_every=1, patience=2, steps=20), tmp_path / "state.pt"
    done = [next(train(dataset, recipe, state_path=state)).step for _ in range(3)]
    assert done == [1, 2, 3]
    assert list(train(dataset, recipe, state_path=state)) == []


def test_no_patience_trains_to_the_end(dataset, tmp_path, monkeypatch):
    """With patience 0, no validation ends a training."""
    planned_scores(monkeypatch, [0.1, 0.2, 0.3, 0.4, 0.5])
    recipe = with_training(validate_every=1, patience=0, steps=5)
    assert len(list(train(dataset, recipe, state_path=tmp_path / "state.pt"))) == 5


@pytest.mark.parametrize("pieces", [2, 3, 4])
def test_a_batch_in_pieces_has_the_same_gradient(pieces):
    """Losses and gradients of a batch of four do not depend on how it is cut, up to rounding."""
    torch.manual_seed(0)
    model, x, y = CVDM(TINY_RECIPE.model), torch.randn(4, 1, 16, 16), torch.randn(4, 1, 16, 16)
    batch, found = Batch.drawn(x, y, 0, 0), []
    for cut in (1, pieces):
        model.zero_grad(set_to_none=True)
        losses = accumulate_gradient(model, batch, batch_losses, smoothness=1e-3, pieces=cut, device="cpu")
        found.append((losses, [None if p.grad is None else p.grad.clone() for p in model.parameters()]))
    (whole, gradient), (cut_losses, cut_gradient) = found
    assert cut_losses == pytest.approx(whole, rel=1e-4, abs=1e-6)
    for one, other in zip(gradient, cut_gradient, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def memory_for(monkeypatch, patches: int) -> list[int]:
    """Let the gradient run out of memory for more than so many patches at once; returns what was too much."""
    real, refused = execution.batch_losses, []

    def bounded(model, x, *rest):
        if len(x) > patches:
            refused.append(len(x))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, x, *rest)

    monkeypatch.setattr(execution, "batch_losses", bounded)
    return refused


def test_a_batch_too_large_for_memory_is_halved(dataset, tmp_path, monkeypatch):
    """With memory for one patch of two, training goes on in pieces, says so, and learns the same."""
    recipe = with_training(batch=2)
    list(train(dataset, recipe, state_path=tmp_path / "whole.pt"))
    refused = memory_for(monkeypatch, 1)
    run = train(dataset, recipe, state_path=tmp_path / "cut.pt")
    first = next(run)
    assert first.pieces == 2 and first.news == (
        "memory is short: each batch is cut into 2 pieces from now on",
    )
    run.close()
    steps = list(train(dataset, recipe, state_path=tmp_path / "cut.pt"))
    assert {step.pieces for step in steps} == {2}
    assert refused == [2], "a resumed training knows what fits"
    for name, value in weights(tmp_path / "whole.pt").items():
        assert torch.allclose(value, weights(tmp_path / "cut.pt")[name], rtol=1e-3, atol=1e-4), name


def test_no_room_for_a_single_patch_ends_with_a_remedy(dataset, tmp_path, monkeypatch):
    """What cannot be cut further is an error that says what to lower."""
    memory_for(monkeypatch, 0)
    with pytest.raises(TrainingError, match=r"one patch of 16 px.*training\.patch"):
        list(train(dataset, with_training(batch=4), state_path=tmp_path / "state.pt"))


def test_real_want_of_memory_is_recognised():
    """What the CPU's allocator raises counts; another failure of an operation does not."""
    with pytest.raises(RuntimeError) as failure:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(failure.value)
    with pytest.raises(RuntimeError) as failure:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(failure.value)


def test_an_empty_split_is_refused_before_anything_is_trained(dataset, tmp_path):
    """Without calibration fields the training would end in vain, so it does not begin."""
    held = replace(
        dataset, pairs=tuple(p for p in dataset.pairs if p.field not in dataset.fields("calibration"))
    )
    with pytest.raises(DatasetError, match="calibration"):
        next(train(held, TINY_RECIPE, state_path=tmp_path / "state.pt"))


def test_learning_rate_warms_up_and_decays():
    """Linear to the peak, cosine down to a hundredth of it."""
    config = TrainingConfig(steps=1000, warmup=100, learning_rate=1.0)
    assert learning_rate_at(0, config) == pytest.approx(0.01)
    assert learning_rate_at(99, config) == 1.0
    assert learning_rate_at(550, config) == pytest.approx(0.505, abs=0.01)
    assert learning_rate_at(1000, config) == pytest.approx(0.01)


def test_times_cover_the_unit_interval_evenly():
    """Each of B equal parts of [0, 1] holds exactly one time."""
    times = diffusion_times(8, torch.Generator().manual_seed(0)).flatten()
    assert sorted((times * 8).floor().int().tolist()) == list(range(8))


def test_patches_depend_on_step_and_seed_alone(dataset):
    """A batch can be asked for in any order, and input and target are cut and turned alike."""
    normalisation = training_normalisation(dataset, TINY_RECIPE)
    source = PatchSource(dataset, normalisation, patch=32, batch=4, seed=3)
    third = source.batch_at(3)
    source.batch_at(0)
    again = source.batch_at(3)
    assert torch.equal(third[0], again[0]) and torch.equal(third[1], again[1])
    assert not torch.equal(third[0], source.batch_at(4)[0])
    alike = [np.corrcoef(low.flatten(), high.flatten())[0, 1] for low, high in zip(*third, strict=True)]
    assert max(alike) > 0.9  # of the patches that show more than background


def test_training_never_reads_a_held_out_field(dataset, tmp_path):
    """With the images of calibration and test fields destroyed, training still gives the same weights."""
    list(train(dataset, TINY_RECIPE, state_path=tmp_path / "a.pt"))
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"no image")
    seen = {*dataset.fields("train"), *dataset.fields("validation")}
    pairs = tuple(p if p.field in seen else replace(p, low=broken, high=broken) for p in dataset.pairs)
    list(train(replace(dataset, pairs=pairs), TINY_RECIPE, state_path=tmp_path / "b.pt"))
    one, other = weights(tmp_path / "a.pt"), weights(tmp_path / "b.pt")
    assert all(torch.equal(one[name], other[name]) for name in one)
