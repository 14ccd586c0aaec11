"""Classifiers of the noise level: the sum over levels, its precision, labels, and second derivatives."""

import math

import pytest
import torch
from torch import nn
from torch.autograd.gradcheck import gradgradcheck

from methods import UNLABELED
from methods.networks.level_network import EncoderTrunk, LevelNetwork, UNetTrunk

LEVELS = 12
TRUNKS = {
    "encoder": lambda **kw: EncoderTrunk(1, width=8, multipliers=(1, 2), blocks=1, attention=(2,), **kw),
    "encoder-grid": lambda **kw: EncoderTrunk(1, 8, (1, 2), 1, (), head_channels=None, grid=2, **kw),
    "encoder-plain": lambda **kw: EncoderTrunk(1, 8, (1, 2), 1, (), head_channels=None, **kw),
    "unet": lambda **kw: UNetTrunk(1, 10, width=8, multipliers=(1, 2), blocks=1, attention=(2,), dropout=0, **kw),
}
every_trunk = pytest.mark.parametrize("trunk", TRUNKS)


def built(trunk: str, norms: bool = True, **kwargs) -> LevelNetwork:
    """A small network whose zero-initialised layers are random too."""
    net = LevelNetwork(TRUNKS[trunk](**kwargs), LEVELS, norms)
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net.eval()


def images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 1, 8, 8)


@every_trunk
@pytest.mark.parametrize("norms", [True, False])
def test_logits_are_the_sums_of_the_head(trunk, norms):
    net, seen = built(trunk, norms), []
    net.head.register_forward_hook(lambda _, inputs, output: seen.append(output))
    logits = net(images())
    assert logits.shape == (4, LEVELS)
    torch.testing.assert_close(logits.diff(dim=1, prepend=torch.zeros(4, 1)), seen[0], atol=1e-5, rtol=1e-4)


@every_trunk
def test_an_untrained_network_gives_every_level_the_same_logit_and_still_learns(trunk):
    net, x = LevelNetwork(TRUNKS[trunk](), LEVELS), images(8)
    assert not net(x).any()
    target = torch.arange(8)
    assert float(nn.functional.cross_entropy(net(x), target).detach()) == pytest.approx(math.log(LEVELS))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(20):
        loss = nn.functional.cross_entropy(net(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < math.log(LEVELS) - 0.2


@every_trunk
def test_a_loss_of_input_gradients_reaches_every_weight(trunk):
    net = built(trunk, classes=3)
    x = images().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, torch.tensor([0, 1, 2, -1])).square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@every_trunk
def test_second_derivatives_are_those_of_finite_differences(trunk):
    net = built(trunk).double()
    weights = [p for p in net.parameters() if p.dim() == 4][:2]
    assert gradgradcheck(lambda x, *_: net(x), (images(2).double().requires_grad_(), *weights), fast_mode=True)


@every_trunk
def test_no_label_is_a_class_of_its_own(trunk):
    net, x = built(trunk, classes=3), images(1).expand(4, -1, -1, -1)
    logits = net(x, torch.tensor([0, 1, 2, UNLABELED]))
    torch.testing.assert_close(logits[3:], net(x[:1]))
    assert torch.pdist(logits).min() > 1e-3
    free = built(trunk)
    assert (net.classes, free.classes) == (3, None)
    assert torch.equal(free(x, torch.tensor([0, 1, 2, UNLABELED])), free(x))


def test_the_norm_of_an_image_reaches_the_head_when_asked():
    x = images()
    for norms in (True, False):
        net = built("encoder", norms)
        features = net.trunk(x)
        net.trunk.forward = lambda x, y=None, features=features: features
        assert torch.equal(net(x), net(2 * x)) is not norms


class Constant(nn.Module):
    out_channels = 1

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return x.new_ones(len(x), 1)


@pytest.mark.parametrize("mode", ["autocast", "weights"])
def test_sums_of_thousands_of_nats_are_exact_in_half_precision(mode):
    net = LevelNetwork(Constant(), 1002)
    with torch.no_grad():
        net.head.weight.fill_(-12.0625)  # exact in bfloat16
    if mode == "weights":
        net = net.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode == "autocast"):
        logits = net(images(2).to(net.head.weight.dtype))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits[0], -12.0625 * torch.arange(1, 1003), atol=0.01, rtol=0)


@every_trunk
def test_logits_and_gradients_survive_autocast(trunk):
    net = built(trunk)
    x = images().requires_grad_()
    exact = net(x)
    (gradient,) = torch.autograd.grad(exact[:, -1].sum(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net(x)
        (half,) = torch.autograd.grad(found[:, -1].sum(), x, create_graph=True)
        half.square().sum().backward()
    assert found.dtype == half.dtype == torch.float32
    torch.testing.assert_close(found, exact, atol=0.1, rtol=0.05)
    assert nn.functional.cosine_similarity(half.flatten(), gradient.flatten(), dim=0) > 0.98
