"""The rivals of benchmarks/schedules.py are what they are called; else the comparison says nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rivals import RIVALS, StraightSchedule, denoised, flow_error, without_regression
from schedules import set_gradients, summary
from scoring import BLOCK, Row, Scores, add_rows, blocks, read_rows
from specimens import TINY_RECIPE, cells

from cvdm.config import SamplingConfig, ScheduleConfig
from cvdm.field_of_view import BORDER, FieldOfView
from cvdm.model import signal_from_velocity
from cvdm.normalisation import Normalisation
from cvdm.observation import Observation

SHAPE = (3, 1, 16, 16)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    x, y, eps = (torch.randn(SHAPE).double() for _ in range(3))
    return x, y, torch.tensor([0.2, 0.5, 0.8]).double().view(-1, 1, 1, 1), eps


def built(name):
    """A rival's model whose output is not zero."""
    torch.manual_seed(1)
    model = RIVALS[name].build(TINY_RECIPE.model)
    model = (model if RIVALS[name].regression else without_regression(model, 0.3)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_flow_matching_follows_the_straight_path_and_weighs_its_velocity(batch):
    """Its objective is ||eps - z - w_hat||^2, w_hat being the network's output on x_t = (1 - t) z + t eps."""
    x, z, t, eps = batch
    model = built("flow matching")
    condition = model.condition(x)
    seen = denoised(model, condition, z, t, eps)
    x_t = (1 - t) * z + t * eps
    shared = torch.cat([seen.point.log_snr / 4, condition.features], dim=1)
    w_hat = model.denoiser(torch.cat([x_t, shared], dim=1))
    torch.testing.assert_close(flow_error(seen), (eps - z - w_hat).square().mean())


def test_an_exact_flow_returns_the_signal(batch, monkeypatch):
    """Where the network says w = eps - z, the model's z_hat is z."""
    x, z, t, eps = batch
    model = built("flow matching")
    condition = model.condition(x)
    point = model.schedule.at(t, condition.paths)
    monkeypatch.setattr(model.denoiser, "forward", lambda _: eps - z)
    z_t = point.gamma.sqrt() * z + point.noise_power.sqrt() * eps
    v_hat = model.velocity(z_t, point, condition.features)
    torch.testing.assert_close(signal_from_velocity(v_hat, z_t, point), z)


def test_the_straight_schedule_has_the_derivatives_that_it_says():
    """Against differences of its own log-SNR."""
    schedule, h = StraightSchedule(ScheduleConfig()), 1e-5
    t, paths = torch.tensor(0.3).double().view(1, 1, 1, 1), torch.zeros(1, 1, 1, 1).double()
    before, here, after = (schedule.at(t + d, paths) for d in (-h, 0, h))
    torch.testing.assert_close(here.rate, (after.log_snr - before.log_snr) / (2 * h), rtol=1e-6, atol=0)
    torch.testing.assert_close(here.curvature, (after.rate - before.rate) / (2 * h), rtol=1e-6, atol=0)


def test_without_regression_the_input_itself_is_the_mean(batch):
    """y - x is what remains, in the scale that was given, whatever the image."""
    x, *_ = batch
    condition = built("y - x, cosine").condition(x)
    torch.testing.assert_close(condition.mean, x)
    torch.testing.assert_close(condition.scale, torch.full_like(x, 0.3))


def test_one_curve_is_the_same_for_every_pixel(batch):
    """The ablation's map is flat, where the full schedule's is not."""
    x, _, t, _ = batch
    for name, varies in (("pinned, one curve", False), ("pinned", True)):
        model = built(name)
        gamma = model.schedule.at(t, model.schedule.paths(x)).gamma
        assert (gamma.flatten(1).std(dim=1) > 1e-6).all().item() is varies


@pytest.mark.parametrize("name", RIVALS)
def test_every_rival_teaches_its_denoiser_and_a_learned_schedule(name, batch):
    """Both get a gradient, and a fixed schedule has nothing that could."""
    model = built(name)
    denoiser, schedule = list(model.denoiser.parameters()), list(model.schedule.parameters())
    set_gradients(RIVALS[name], model, batch, TINY_RECIPE, denoiser, schedule)
    assert any(p.grad.abs().max() > 0 for p in denoiser)
    assert bool(schedule) is model.schedule.learned
    assert not schedule or any(p.grad.abs().max() > 0 for p in schedule)


def test_rows_survive_the_file(tmp_path):
    """What was measured is read back as it was, so that a run can go on."""
    rows = [
        Row("t", seed, rival, 12, "angular-euler", 10, Scores(crps, 0.1, 20, 0.5, 0.8, 0.9, 1, 0.3, 0))
        for seed in (0, 1)
        for rival, crps in (("pinned", 0.25), ("cosine", 0.5))
    ]
    path = tmp_path / "reports" / "schedules.csv"
    add_rows(path, rows[:1])
    add_rows(path, rows[1:])
    assert read_rows(path) == rows and read_rows(tmp_path / "none.csv") == []
    assert summary(rows) == "CRPS at 10 steps, t: pinned has 0.500 of cosine's"


def test_without_diffusion_draws_are_white_around_the_mean():
    """The floor that every rival has to go below: mu + sigma eps, whatever the steps."""
    model = RIVALS["no diffusion"].build(TINY_RECIPE.model).eval().requires_grad_(False)
    view = FieldOfView(
        model,
        Normalisation("dataset", 0, 2),
        Observation.of(cells(np.random.default_rng(0), 32) / 100),
        SamplingConfig(samples=64, steps=3),
    )
    draws = np.stack(list(view.draws()))
    sigma = view.condition.scale[0, 0, BORDER : BORDER + 32, BORDER : BORDER + 32].numpy()
    white = (draws - view.regression_mean()) / sigma
    assert white.std() == pytest.approx(1, abs=0.01)
    assert blocks(white).std() == pytest.approx(1 / BLOCK, rel=0.1)
