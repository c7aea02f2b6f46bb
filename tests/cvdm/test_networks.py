"""Networks: bounded sight, translation by the stride, silence at birth."""

import pytest
import torch

from cvdm.config import NetworkConfig
from cvdm.networks import LocalConvNet, UNet


def lively(network):
    torch.manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.double()


@pytest.mark.parametrize(("levels", "blocks", "stem"), [(1, 1, 2), (2, 1, 2), (3, 1, 1), (2, 2, 2)])
def test_no_output_sees_beyond_the_receptive_radius(levels, blocks, stem):
    """The gradient of any output pixel is zero farther away than the network says, and not much nearer."""
    network = lively(UNet(1, 1, NetworkConfig(4, levels, blocks, stem)))
    radius = network.receptive_radius()
    edge = 2 * (radius // network.stride + 2) * network.stride
    reach = 0
    for shift in range(network.stride):  # the alignment to the coarse grid matters
        x = torch.randn(1, 1, edge, edge, dtype=torch.float64, requires_grad=True)
        at = edge // 2 + shift
        network(x)[0, 0, at, at].backward()
        rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
        reach = max(reach, at - int(rows.min()), int(rows.max()) - at)
    assert reach <= radius <= reach + network.stride + network.stem


def test_schedule_network_sees_no_farther_than_it_says():
    """The same bound holds for the schedule's network."""
    network = lively(LocalConvNet(1, 2, 4))
    x = torch.randn(1, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    network(x)[0, 0, 16, 16].backward()
    rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert max(16 - int(rows.min()), int(rows.max()) - 16) <= network.receptive_radius()


def test_shifting_the_image_by_the_stride_shifts_the_output():
    """Away from the border the network treats every place alike."""
    network = lively(UNet(1, 1, NetworkConfig(4, levels=2)))
    radius, stride = network.receptive_radius(), network.stride
    x = torch.randn(1, 1, 96, 96, dtype=torch.float64)
    shifted = torch.roll(x, stride, dims=2)
    inner = slice(radius + stride, 96 - radius - stride)
    torch.testing.assert_close(
        network(x)[0, 0, inner, inner], network(shifted).roll(-stride, dims=2)[0, 0, inner, inner]
    )


def test_a_new_network_says_nothing():
    """Output layers start at zero, so training starts from the observation itself."""
    assert UNet(2, 1, NetworkConfig(4, levels=2))(torch.randn(1, 2, 16, 16)).abs().max() == 0
