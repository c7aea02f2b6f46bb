"""Noise: normal, and a function of position alone."""

import torch

from cvdm.noise import gaussian_field


def test_a_pixels_noise_does_not_depend_on_the_window():
    """The noise of a crop is the crop of the noise."""
    whole = gaussian_field(64, 80, seed=3, draw=1, step=2)
    part = gaussian_field(20, 30, seed=3, draw=1, step=2, top=11, left=17)
    assert torch.equal(part, whole[..., 11:31, 17:47])


def test_seed_draw_and_step_each_give_fresh_noise():
    """Another seed, pair of draws, step or position gives uncorrelated noise."""
    base = gaussian_field(256, 256, seed=0, draw=0, step=0)
    others = [{"seed": 1}, {"draw": 2}, {"step": 1}, {"top": 1}, {"left": 1}]
    for change in others:
        other = gaussian_field(256, 256, **({"seed": 0, "draw": 0, "step": 0} | change))
        correlation = (base * other).mean().item()
        assert abs(correlation) < 5 / 256  # five standard errors


def test_paired_draws_have_opposite_noise():
    """Draws 2k and 2k + 1 are mirror images; pairs are independent of each other."""
    one, two, three = (gaussian_field(64, 64, seed=0, draw=k, step=1) for k in (2, 3, 4))
    assert torch.equal(one, -two)
    assert abs((one * three).mean()) < 5 / 64


def test_noise_is_standard_normal():
    """Mean, variance, kurtosis and the correlation of neighbours are those of white Gaussian noise."""
    noise = gaussian_field(512, 512, seed=9, draw=0, step=0).double()
    assert abs(noise.mean()) < 0.01
    assert abs(noise.var() - 1) < 0.015
    assert abs((noise**4).mean() - 3) < 0.1
    assert abs((noise[..., 1:] * noise[..., :-1]).mean()) < 0.01
    assert torch.isfinite(noise).all()
