"""Pseudo-labels beside the losses of other methods."""

import pytest
import torch
from oracles import ExactClassifier, ExactDenoiser, GaussianMixture
from torch import nn

from methods.diffusion.process import ContinuousVP, DiscreteVP, VarianceExploding
from methods.noisy_classifier import NoisyClassifierGuidance
from methods.pseudo_labeled import PseudoLabeled
from methods.self_calibrating import SelfCalibrating
from methods.supervised import Supervised

MIXTURE = GaussianMixture.example((1, 2, 2), spread=0.3)
PROCESSES = {"ve": VarianceExploding(0.1, 5.0), "vp": ContinuousVP(), "discrete": DiscreteVP(100)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


class Exact(NoisyClassifierGuidance):
    """The exact posterior as a method without losses."""

    def __init__(self, process):
        super().__init__(ExactDenoiser(MIXTURE, process), nn.Identity())
        self.classifier = ExactClassifier(MIXTURE, process)

    def losses(self, batch):
        return {}


@every_process
def test_the_term_is_the_cross_entropy_at_random_noise_with_the_likeliest_class_of_the_image(process):
    method, x = PseudoLabeled(Exact(process), confidence=0.8, weight=0.5), MIXTURE.sample(64)[0]
    torch.manual_seed(3)
    found = method.losses({"labeled": MIXTURE.sample(2), "unlabeled": x})
    torch.manual_seed(3)
    MIXTURE.sample(2)
    clean = method.method.classifier(x, torch.full((len(x),), process.t_min)).softmax(1)
    t = process.sample_times(len(x))
    x_t, _ = process.perturb(x, t)
    log_posterior = MIXTURE.class_log_joint(x_t, process.alpha(t), process.sigma(t)).log_softmax(1)
    sure = clean.max(1).values >= 0.8
    assert 0 < sure.sum() < len(x)
    expected = -0.5 * log_posterior[sure, clean.argmax(1)[sure]].sum() / len(x)
    torch.testing.assert_close(found["pseudo_label"], expected.float(), rtol=1e-3, atol=1e-4)


def test_evaluation_and_labeled_batches_have_the_losses_of_the_method_alone():
    method = PseudoLabeled(Exact(PROCESSES["vp"]))
    images = {"labeled": MIXTURE.sample(4)}
    assert method.losses(images) == {}
    assert method.eval().losses({**images, "unlabeled": MIXTURE.sample(4)[0]}) == {}


def test_a_method_with_second_derivatives_still_has_them():
    network = nn.Linear(1, 1)
    inner = SelfCalibrating(ExactDenoiser(MIXTURE, PROCESSES["vp"]), network)
    assert PseudoLabeled(inner).second_order
    assert not PseudoLabeled(Exact(PROCESSES["vp"])).second_order


def test_a_classifier_of_clean_images_is_refused():
    with pytest.raises(ValueError, match="Supervised has no classifier of noisy images"):
        PseudoLabeled(Supervised(nn.Linear(4, 3)))
