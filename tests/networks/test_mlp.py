"""The classifier of points: its gradients depend on the noise level, and it takes points of any noise."""

import math

import pytest
import torch

from methods.networks.mlp import PointClassifier


def gradients(network, x, log_sigma):
    """``grad (f_0 - f_1)`` of each point, ``(B, 2)``."""
    x = x.clone().requires_grad_()
    logits = network(x, torch.full((len(x),), log_sigma))
    (slope,) = torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), x)
    return slope.flatten(1)


def test_the_direction_of_the_gradient_changes_with_the_noise_level():
    network, x = PointClassifier(2, 2), torch.randn(50, 2, 1, 1)
    low, high = gradients(network, x, -3.0), gradients(network, x, 0.0)
    assert torch.nn.functional.cosine_similarity(low, high).mean() < 0.99
    # With inputs of one scale: what is left is what the layers make of the level itself.
    scaled = [x * (0.25 + torch.exp(torch.tensor(2 * level))) ** 0.5 for level in (-3.0, 0.0)]
    found = [gradients(network, points, level) for points, level in zip(scaled, (-3.0, 0.0), strict=True)]
    assert torch.nn.functional.cosine_similarity(*found).mean() < 0.99


@pytest.mark.parametrize("log_sigma", [-10.0, 0.0, 10.0])
def test_what_the_layers_read_is_of_order_one_at_every_noise_level(log_sigma):
    network, read = PointClassifier(2, 2, data_std=0.3), []
    network.body.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    level = torch.full((2000,), log_sigma)
    network(0.3 * torch.randn(2000, 2, 1, 1) + math.exp(log_sigma) * torch.randn(2000, 2, 1, 1), level)
    torch.testing.assert_close(read[0][:, :2].std(0), torch.ones(2), atol=0.1, rtol=0)


def test_a_noise_level_that_is_missing_or_not_wanted_is_refused():
    x = torch.randn(2, 2, 1, 1)
    with pytest.raises(ValueError, match="noise=True"):
        PointClassifier(2, 2)(x)
    with pytest.raises(ValueError, match="noise=False"):
        PointClassifier(2, 2, noise=False)(x, torch.zeros(2))
