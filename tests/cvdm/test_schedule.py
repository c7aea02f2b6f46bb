"""The noise schedule: exact derivatives, exact end points, always falling."""

import pytest
import torch

from cvdm.config import SCHEDULES, ScheduleConfig
from cvdm.schedule import ScheduleExtremes, build_schedule, schedule_curves, schedule_extremes
from cvdm.schedule.learned import monotone_curvatures, monotone_curves

PIXELS = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()


def schedule_with_paths(kind):
    torch.manual_seed(0)
    schedule = build_schedule(ScheduleConfig(kind=kind)).double()
    if schedule.learned:
        torch.nn.init.normal_(schedule.network.leave.conv.weight, std=0.5)
    return schedule, schedule.paths(PIXELS)


def at(value):
    return torch.full((2, 1, 1, 1), value, dtype=torch.float64)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("t", [0.05, 0.3, 0.9])
def test_derivatives_equal_finite_differences(kind, t):
    """rate, curvature, gamma_rate and gamma_curvature are the derivatives that their names say."""
    schedule, paths = schedule_with_paths(kind)
    h = 1e-5
    here, before, after = (schedule.at(at(t + d), paths) for d in (0, -h, h))
    for name, of in (
        ("rate", "log_snr"),
        ("curvature", "rate"),
        ("gamma_rate", "gamma"),
        ("gamma_curvature", "gamma_rate"),
    ):
        difference = (getattr(after, of) - getattr(before, of)) / (2 * h)
        torch.testing.assert_close(getattr(here, name), difference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_beta_is_the_exact_rate_of_log_gamma(kind):
    """beta = -d log gamma / dt, so the paper's consistency penalty vanishes by construction."""
    schedule, paths = schedule_with_paths(kind)
    t = at(0.4).requires_grad_()
    point = schedule.at(t, paths)
    (rate,) = torch.autograd.grad(point.gamma.log().mean(dim=(1, 2, 3)).sum(), t)
    torch.testing.assert_close(point.beta.mean(dim=(1, 2, 3)), -rate.flatten())


@pytest.mark.parametrize("kind", SCHEDULES)
def test_signal_only_ever_falls(kind):
    """gamma is strictly decreasing in t at every pixel."""
    schedule, paths = schedule_with_paths(kind)
    log_snr = torch.stack([schedule.at(at(t), paths).log_snr for t in torch.linspace(0, 1, 50).tolist()])
    assert (log_snr.diff(dim=0) < 0).all()


@pytest.mark.parametrize("kind", [kind for kind in SCHEDULES if kind != "separable"])
def test_end_points_hold_at_every_pixel(kind):
    """Whatever the weights, the log-SNR starts and ends where the configuration says."""
    schedule, paths = schedule_with_paths(kind)
    for t, expected in ((0.0, 7.0), (1.0, -7.0)):
        log_snr = schedule.at(at(t), paths).log_snr
        torch.testing.assert_close(log_snr, torch.full_like(log_snr, expected))


def test_separable_schedule_starts_at_the_configured_end_points():
    """Before training, the paper's form meets the end points that training may move."""
    schedule = build_schedule(ScheduleConfig(kind="separable")).double()
    paths = schedule.paths(PIXELS)
    for t, expected in ((0.0, 7.0), (1.0, -7.0)):
        assert schedule.at(at(t), paths).log_snr.mean().item() == pytest.approx(expected, abs=0.02)


def test_pixels_follow_their_own_path():
    """A learned schedule gives different pixels different gammas between the ends; a fixed one does not."""
    for kind, differs in (("pinned", True), ("separable", True), ("cosine", False)):
        schedule, paths = schedule_with_paths(kind)
        assert (schedule.at(at(0.5), paths).gamma.std() > 1e-6) == differs


def test_monotone_curves_come_in_inverse_pairs():
    """s_c undone by its mirror curve is the identity, so early and late noise are treated alike."""
    curvatures = monotone_curvatures(7).double()
    t = torch.linspace(0, 1, 11).double().view(-1, 1, 1, 1)
    there, _, _ = monotone_curves(t, curvatures[1:2])
    back, _, _ = monotone_curves(there, curvatures[-2:-1])
    torch.testing.assert_close(back, t)


def test_curves_for_the_log_are_ordered_quantiles():
    """The quantile bands of gamma do not cross, and span the unit interval over time."""
    schedule, paths = schedule_with_paths("pinned")
    curves = schedule_curves(schedule, paths[:1], count=9)
    assert all(low <= mid <= high for low, mid, high in zip(*curves.gamma, strict=True))
    assert curves.gamma[1][0] > 0.99 and curves.gamma[1][-1] < 0.01


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_sound_schedule_is_found_sound(kind):
    """Every schedule falls, is finite, and meets the configured end points."""
    schedule = build_schedule(ScheduleConfig(kind=kind))
    found = schedule_extremes(schedule, schedule.paths(torch.randn(1, 1, 16, 16)))
    assert found.finite and found.falling
    if kind != "separable":  # whose ends are free
        assert (found.clean, found.noise) == pytest.approx((7, -7), abs=1e-3)


def test_one_bad_pixel_is_seen():
    """Planted: a pixel without a number, one whose signal rises, one that keeps its signal to the end."""
    schedule = build_schedule(ScheduleConfig(kind="separable"))
    paths = torch.ones(1, 1, 8, 8)
    sound = schedule_extremes(schedule, paths)
    for value, fault in ((float("nan"), "finite"), (-1.0, "falling"), (0.3, "noise")):
        broken = paths.clone()
        broken[0, 0, 3, 3] = value
        found = schedule_extremes(schedule, broken)
        if fault == "noise":
            assert found.falling and found.noise > sound.noise + 1
        else:
            assert not getattr(found, fault)
    worse = ScheduleExtremes(True, False, 3.0, -9.0)
    joined = sound.joined(worse)
    assert (joined.falling, joined.clean, joined.noise) == (False, 3.0, -9.0)
