"""PvU and puNCE of positive and unlabeled images, held against closed forms and their formulas written out."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from datamodules.grey_levels import GreyLevels
from methods.baselines.elkan_noto import ElkanNoto, PoolPosterior
from methods.baselines.pu_contrastive import PUContrastive, non_negative_risk, pu_contrast


def test_the_pools_posterior_follows_from_who_is_labeled():
    """Bayes' rule on images of which a positive has density 3 or 0.5 times a negative, c of the positives labeled."""
    c, share = torch.tensor(0.25), 0.4
    ratio = torch.tensor([3.0, 0.5, 1e-3])  # p(x | y = 1) / p(x | y = 0)
    pool = share * ratio / (share * ratio + 1 - share)
    among_all = share / (1 - c) * ratio / (share / (1 - c) * ratio + 1 - share)  # labeled positives are there too
    h = c * among_all
    posterior = PoolPosterior(lambda x: torch.stack([torch.zeros(3), torch.logit(h)], dim=1))
    posterior.c.copy_(c)
    torch.testing.assert_close(posterior(torch.zeros(3)).exp(), torch.stack([1 - pool, pool], dim=1))


def test_a_posterior_above_one_is_one():
    posterior = PoolPosterior(lambda x: torch.tensor([[0.0, 9.0]]))
    assert posterior(torch.zeros(1)).exp()[0].tolist() == pytest.approx([0, 1], abs=2e-6)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def features(self, x):
        return x.flatten(1)

    def forward(self, x):
        return self.head(self.features(x))


def test_positives_are_told_from_unlabeled_images():
    method = ElkanNoto(Linear()).train()
    x, u = torch.randn(3, 1, 2, 2), torch.randn(5, 1, 2, 2)
    found = method.losses({"labeled": (x, torch.ones(3).long()), "unlabeled": u})["labeled"]
    h = method.classifier.network(torch.cat([x, u])).softmax(1)[:, 1]
    torch.testing.assert_close(found, -(h[:3].log().sum() + (1 - h[3:]).log().sum()) / 8)


def test_the_share_of_labels_is_the_mean_over_held_out_positives_and_is_kept():
    method = ElkanNoto(Linear()).train()
    u, y = torch.randint(17, (1200, 1, 2, 2), dtype=torch.uint8), torch.arange(1200) % 2
    data = SimpleNamespace(images=lambda part: {"validation": (u, y)}[part], grey=GreyLevels(17))
    method._trainer = SimpleNamespace(datamodule=data, barebones=True)
    checkpoint = {"state_dict": method.state_dict()}
    method.on_save_checkpoint(checkpoint)
    h = method.classifier.network(data.grey.centre(u[y == 1])).softmax(1)[:, 1]
    torch.testing.assert_close(checkpoint["state_dict"]["classifier.c"], h.mean().detach())
    assert method.training


@pytest.mark.parametrize("prior", [0.0, 0.3, 1.0])
def test_the_contrast_weighs_pairs_as_the_paper_says(prior):
    torch.manual_seed(0)
    z, images = torch.randn(10, 3), 5
    labeled = torch.tensor([True, True, False, False, False] * 2)
    unit = z / z.norm(dim=1, keepdim=True)
    terms = []
    for i in range(10):
        others = [j for j in range(10) if j != i]
        total = sum(math.exp(unit[i] @ unit[j] / 0.5) for j in others)
        log_p = {j: float(unit[i] @ unit[j] / 0.5) - math.log(total) for j in others}
        twin, positives = (i + images) % 10, [j for j in others if labeled[j]]
        if labeled[i]:
            terms.append(sum(log_p[j] for j in positives) / len(positives))
        else:
            both = [*positives, twin]
            terms.append(prior * sum(log_p[j] for j in both) / len(both) + (1 - prior) * log_p[twin])
    found = pu_contrast(z, labeled, torch.tensor(prior), 0.5)
    assert found.item() == pytest.approx(-sum(terms) / 10, rel=1e-5)


def test_without_labels_and_prior_the_contrast_is_that_of_simclr():
    z = torch.randn(8, 3)
    unit = z / z.norm(dim=1, keepdim=True)
    similar = (unit @ unit.T / 0.5).masked_fill(torch.eye(8, dtype=torch.bool), -torch.inf)
    expected = nn.functional.cross_entropy(similar, torch.arange(8).roll(-4))
    torch.testing.assert_close(pu_contrast(z, torch.zeros(8, dtype=torch.bool), torch.tensor(0.0), 0.5), expected)


def test_contrastive_features_learn_nothing_from_the_risk():
    network = Linear()
    network.trunk = nn.Linear(4, 4)
    network.features = lambda x: network.trunk(x.flatten(1))
    method = PUContrastive(network, nn.Identity()).train()
    method.class_prior = torch.tensor([0.5, 0.5])
    images = {"labeled": (torch.randn(3, 1, 2, 2), torch.ones(3).long()), "unlabeled": torch.randn(5, 1, 2, 2)}
    method.losses(images)["risk"].backward()
    assert network.head.weight.grad.any()
    assert network.trunk.weight.grad is None
    method.losses(images)["contrast"].backward()
    assert network.trunk.weight.grad.any()


def test_the_risk_is_non_negative_and_climbs_where_it_would_not_be():
    positive, prior = torch.tensor([0.0, 2.0]), torch.tensor(0.5)
    wrong, right = (torch.sigmoid(sign * positive).mean().item() for sign in (-1, 1))
    for unlabeled in (torch.tensor([3.0]), torch.tensor([-9.0])):
        rest = torch.sigmoid(unlabeled).item() - 0.5 * right
        expected = 0.5 * wrong + rest if rest > 0 else -rest
        assert non_negative_risk(positive, unlabeled, prior).item() == pytest.approx(expected)
