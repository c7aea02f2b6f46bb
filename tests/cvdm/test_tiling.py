"""Tiles: exact with a halo of the receptive radius, close with a smaller one, for any image size."""

import weakref

import pytest
import torch

from cvdm.config import NetworkConfig
from cvdm.networks import UNet
from cvdm.tiling import Tiling, evaluate_tiles, exact_tiling, fast_tiling


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = UNet(1, 1, NetworkConfig(4, levels=2))
    torch.nn.init.normal_(network.leave.conv.weight, std=0.2)
    return network.eval().requires_grad_(False)


def evaluate_tiled(network, x, tiling, begin=0):
    """network(x) from row `begin` on, put together from what `evaluate_tiles` hands out."""
    height, width = x.shape[-2:]
    result = torch.full_like(x, torch.nan)
    for region, values in evaluate_tiles(
        lambda region: network(x[..., *region.slices]), height, width, tiling, begin=begin
    ):
        assert result[..., *region.slices].isnan().all(), "no pixel is handed out twice"
        result[..., *region.slices] = values
    return result[..., begin:, :]


@pytest.mark.parametrize("size", [(100, 132), (64, 64), (8, 200)])
@pytest.mark.parametrize("tile", [17, 32, 64])
def test_exact_tiles_equal_one_piece(network, size, tile):
    """With the exact halo the tiled result is the whole-image result, up to rounding."""
    x = torch.randn(2, 1, *size)
    tiled = evaluate_tiled(network, x, exact_tiling(tile, network.receptive_radius(), network.stride))
    torch.testing.assert_close(tiled, network(x), rtol=1e-4, atol=1e-5)


def test_too_small_a_halo_shows(network):
    """The planted defect: without a halo the tiles disagree, so the test above can fail."""
    x = torch.randn(1, 1, 96, 96)
    tiled = evaluate_tiled(network, x, exact_tiling(32, 0, network.stride))
    assert (tiled - network(x)).abs().max() > 1e-2


def test_blending_hides_the_seams_of_a_small_halo(network):
    """With a halo of half the receptive radius, blending at least halves the worst disagreement."""
    x = torch.randn(1, 1, 96, 96)
    halo = network.receptive_radius() // 2
    whole = network(x)
    hard = evaluate_tiled(network, x, Tiling(32, 0, 0, network.stride))
    soft = evaluate_tiled(network, x, fast_tiling(32, halo, network.stride))
    assert (soft - whole).abs().max() < (hard - whole).abs().max() / 2


@pytest.mark.parametrize("tiling", [exact_tiling(32, 20, 4), fast_tiling(32, 20, 4), fast_tiling(8, 36, 4)])
@pytest.mark.parametrize("begin", [0, 1, 31, 50, 70, 99])
def test_an_evaluation_that_begins_later_gives_the_same_bits(network, tiling, begin):
    """Whatever row it begins at, and with tiles smaller than what neighbours blend over."""
    x = torch.randn(1, 1, 100, 132)
    whole, rest = evaluate_tiled(network, x, tiling), evaluate_tiled(network, x, tiling, begin)
    assert torch.equal(rest, whole[..., begin:, :]) and not rest.isnan().any()


@pytest.mark.parametrize("tiling", [exact_tiling(32, 20, 4), fast_tiling(32, 16, 4)])
def test_what_is_settled_is_handed_out_before_the_next_tile_is_evaluated(network, tiling):
    """Tile by tile, not strip by strip: in use is no more than a tile, whatever the width of the image."""
    x, events = torch.randn(1, 1, 100, 400), []

    def recorded(region):
        events.append("evaluated")
        return network(x[..., *region.slices])

    for _ in evaluate_tiles(recorded, 100, 400, tiling):
        events.append("handed out")
    assert events == ["evaluated", "handed out"] * tiling.count(100, 400)


@pytest.mark.parametrize("tiling", [exact_tiling(32, 20, 4), fast_tiling(32, 16, 4)])
def test_no_tile_is_held_while_the_next_one_is_evaluated(network, tiling):
    """When the caller has let go of its values, all that is left are the seams."""
    x, evaluated = torch.randn(1, 1, 100, 400), []

    def watched(region):
        assert all(former() is None for former in evaluated)
        values = network(x[..., *region.slices])
        evaluated.append(weakref.ref(values))
        return values

    for _, values in evaluate_tiles(watched, 100, 400, tiling):
        del values
    assert len(evaluated) == tiling.count(100, 400) > 10


@pytest.mark.parametrize("length", [4, 60, 64, 100])
def test_every_pixel_lies_in_exactly_one_core(length):
    """Cores partition the axis and windows start on the network's grid."""
    windows = list(Tiling(32, 10, 3, 4).windows(length))
    assert [i for w in windows for i in range(w.start, w.stop)] == list(range(length))
    assert all(w.first % 4 == 0 and w.first <= w.start and w.last >= w.stop for w in windows)


@pytest.mark.parametrize(("length", "count"), [(64, 1), (68, 2), (96, 2), (100, 3), (1000, 31)])
def test_no_window_is_longer_than_a_core_with_two_halos(length, count):
    """Memory is bounded by 32 + 2 x 16 pixels; an image of that length is one piece. All are as long."""
    windows = list(Tiling(32, 10, 3, 4).windows(length))
    assert len(windows) == count
    assert len({w.last - w.first for w in windows}) == 1
    assert max(w.last - w.first for w in windows) <= 64
