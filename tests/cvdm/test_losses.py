"""The objective: each named term is the formula that it claims to be, and reaches what it should."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from specimens import TINY_RECIPE, tiny_model
from torch.distributions import Normal, kl_divergence

from cvdm.config import ModelConfig, ScheduleConfig
from cvdm.losses import PENALTY_WEIGHT, Losses, batch_losses
from cvdm.model import CVDM


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(0)
    x, y, eps = (torch.randn(2, 1, 16, 16, generator=rng) for _ in range(3))
    return x, y, torch.tensor([0.3, 0.8]).view(2, 1, 1, 1), eps


def separable() -> CVDM:
    """A schedule whose ends are free, so that no penalty is zero by construction."""
    schedule = replace(TINY_RECIPE.model.schedule, kind="separable", log_snr_clean=3.0, log_snr_noise=-2.0)
    return tiny_model(replace(TINY_RECIPE, model=replace(TINY_RECIPE.model, schedule=schedule)))


def test_every_term_is_its_formula(batch):
    """Against torch.distributions for likelihood and divergence, and differences of gamma for curvature."""
    x, y, t, eps = batch
    model = separable().double()
    x, y, t, eps = (values.double() for values in (x, y, t, eps))
    losses = batch_losses(model, x, y, t, eps)
    condition = model.condition(x)
    z = (y - condition.mean) / condition.scale

    def gamma(time):
        return model.schedule.at(time, condition.paths).gamma

    zero, one = torch.zeros_like(t), torch.ones_like(t)
    torch.testing.assert_close(losses.mean, torch.nn.functional.mse_loss(condition.mean, y))
    likelihood = Normal(condition.mean, condition.scale).log_prob(y) + math.log(2 * math.pi) / 2
    torch.testing.assert_close(losses.scale, -likelihood.mean())
    last = Normal(gamma(one).sqrt() * z, (1 - gamma(one)).sqrt())
    torch.testing.assert_close(
        losses.prior, kl_divergence(last, Normal(torch.zeros_like(z), torch.ones_like(z))).mean()
    )
    torch.testing.assert_close(losses.endpoints, ((1 - gamma(zero)) ** 2 + gamma(one) ** 2).mean())
    h = 1e-4
    curvature = (gamma(t + h) - 2 * gamma(t) + gamma(t - h)) / h**2
    torch.testing.assert_close(losses.smoothness, curvature.square().mean(), rtol=1e-4, atol=1e-6)


def test_the_denoising_error_of_a_perfect_denoiser_is_zero_and_of_a_silent_one_known(batch, monkeypatch):
    """With the true v nothing is left; with v_hat = 0 all of v is."""
    x, y, t, eps = batch
    model = tiny_model()
    condition = model.condition(x)
    z, point = (y - condition.mean) / condition.scale, model.schedule.at(t, condition.paths)
    true = point.gamma.sqrt() * eps - point.noise_power.sqrt() * z
    monkeypatch.setattr(model, "velocity", lambda *_: true)
    assert batch_losses(model, x, y, t, eps).denoising < 1e-9
    monkeypatch.setattr(model, "velocity", lambda *_: torch.zeros_like(z))
    torch.testing.assert_close(batch_losses(model, x, y, t, eps).denoising, true.square().mean())


def test_the_total_weighs_the_terms_as_published():
    """Mean, scale and denoising count once; the penalties twice, smoothness times alpha."""
    terms = Losses(*(torch.tensor(float(value)) for value in (1, 2, 4, 8, 16, 32)))
    assert float(terms.total(0.5)) == 1 + 2 + 4 + PENALTY_WEIGHT * (0.5 * 8 + 16 + 32)
    assert list(terms.as_floats()) == ["mean", "scale", "denoising", "smoothness", "prior", "endpoints"]


@pytest.mark.parametrize("kind", ["pinned", "separable"])
@pytest.mark.parametrize("term", ["denoising", "smoothness"])
def test_the_schedule_is_learned_by_each_term_that_should(batch, kind, term):
    """Denoising error and smoothness alone each send a gradient to the network of the schedule."""
    schedule = ScheduleConfig(kind=kind, width=4)
    model = tiny_model(replace(TINY_RECIPE, model=replace(TINY_RECIPE.model, schedule=schedule)))
    model.requires_grad_(True)
    getattr(batch_losses(model, *batch), term).backward()
    gradients = [p.grad for p in model.schedule.network.parameters()]
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_penalties_hold_free_ends_and_leave_pinned_ones_alone(batch):
    """Prior and end points pull on the separable schedule; on pinned ends they have no gradient."""
    for model, pulls in ((separable(), True), (tiny_model(), False)):
        model.requires_grad_(True)
        losses = batch_losses(model, *batch)
        total = losses.prior + losses.endpoints
        if total.requires_grad:
            total.backward()
        gradients = [p.grad for p in model.schedule.parameters() if p.grad is not None]
        assert any(g.abs().max() > 1e-6 for g in gradients) == pulls


def test_a_fixed_schedule_has_nothing_to_learn():
    """No parameter, so no gradient and no time is spent on it."""
    assert not list(CVDM(ModelConfig(schedule=ScheduleConfig(kind="cosine"))).schedule.parameters())
