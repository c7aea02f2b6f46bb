"""Samplers against an oracle: linear-Gaussian imaging, where the posterior is known in closed form."""

import pytest
import torch

from cvdm.config import ScheduleConfig
from cvdm.sampler import SOLVERS, Step
from cvdm.schedule import build_schedule

MEAN, STD = 0.7, 0.4  # of z given x; the ideal denoiser follows from Bayes' rule


def ideal_denoiser(z_t, point, mean=MEAN, std=STD):
    """E[z | z_t] for z ~ N(mean, std^2): a precision-weighted mean."""
    precision = 1 / std**2 + point.gamma / point.noise_power
    return (mean / std**2 + point.gamma.sqrt() * z_t / point.noise_power) / precision


def standard_denoiser(z_t, point):
    """The same for z ~ N(0, 1), as the residual is where the observation says nothing more."""
    return ideal_denoiser(z_t, point, 0.0, 1.0)


def walk(solver, signal_at, point_at, noise_at, steps):
    """The states after each step, as whoever holds the image makes them."""
    state = noise_at(0)
    for index in range(1, steps + 1):
        now, after = point_at(1 - (index - 1) / steps), point_at(1 - index / steps)
        step = Step(index, steps, now, after, lambda index=index: noise_at(index))
        state = SOLVERS[solver].advance(state, signal_at(state[:, :1], now), step)
        yield state


def draw(solver, kind, steps, denoiser=ideal_denoiser):
    torch.manual_seed(0)
    schedule = build_schedule(ScheduleConfig(kind=kind, log_snr_clean=9.0, log_snr_noise=-9.0)).double()
    shape = (1, 1, 128, 128)
    if schedule.learned:
        torch.nn.init.normal_(schedule.network.leave.conv.weight, std=0.1)
    paths = schedule.paths(torch.randn(shape).double())
    *_, last = walk(
        solver,
        denoiser,
        lambda t: schedule.at(torch.full((1, 1, 1, 1), t).double(), paths),
        lambda step: torch.randn(shape, generator=torch.Generator().manual_seed(step)).double(),
        steps,
    )
    return last[:, :1]


@pytest.mark.parametrize("kind", ["pinned", "cosine", "log-snr-linear"])
@pytest.mark.parametrize(
    ("solver", "steps"), [("ancestral", 200), ("dpm-solver++", 40), ("angular-euler", 40)]
)
def test_draws_follow_the_known_posterior(solver, kind, steps):
    """With the ideal denoiser, mean and spread of the draws are the posterior's under any schedule."""
    z = draw(solver, kind, steps)
    error = STD / 128  # standard error of the mean over 128 x 128 independent pixels
    assert z.mean().item() == pytest.approx(MEAN, abs=4 * error + 0.01)
    assert z.std().item() == pytest.approx(STD, rel=0.05)


def test_second_order_solver_needs_fewer_steps_than_it_would_at_first_order():
    """At ten steps the spread is already within a tenth of the truth."""
    assert draw("dpm-solver++", "log-snr-linear", 10).std().item() == pytest.approx(STD, rel=0.1)


@pytest.mark.parametrize("kind", ["pinned", "cosine", "log-snr-linear"])
def test_three_steps_of_the_angle_keep_the_spread_of_a_standard_residual(kind):
    """There v is zero and Euler's step exact; a solver that holds z_hat loses more than a tenth."""
    assert draw("angular-euler", kind, 3, standard_denoiser).std().item() == pytest.approx(1, abs=0.02)
    assert draw("dpm-solver++", kind, 3, standard_denoiser).std().item() < 0.9


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_part_of_an_image_advances_as_it_does_in_the_whole(solver):
    """Left and right half by themselves, their states kept apart, give the draw of both together."""
    schedule = build_schedule(ScheduleConfig(kind="cosine"))
    noise = [torch.randn(2, 1, 4, 6, generator=torch.Generator().manual_seed(step)) for step in range(5)]

    def drawn(columns):
        def point(t):
            return schedule.at(torch.full((1, 1, 1, 1), t), torch.zeros(1, 1, 4, 6)[..., columns])

        states = list(walk(solver, ideal_denoiser, point, lambda step: noise[step][..., columns], 4))
        assert all(state.shape[1] == SOLVERS[solver].channels for state in states)
        return states[-1][:, :1]

    halves = torch.cat([drawn(slice(0, 3)), drawn(slice(3, 6))], dim=-1)
    assert torch.equal(halves, drawn(slice(0, 6)))
