"""Self-calibration beside the losses of other methods."""

import pytest
import torch
from lightning import Trainer
from oracles import ExactDenoiser, GaussianMixture
from torch import nn

from methods.calibrated import Calibrated
from methods.denoising_assisted import DenoisingAssisted
from methods.diffusion.guidance import NoisyClassifier
from methods.diffusion.process import ContinuousVP, DiscreteVP, VarianceExploding
from methods.noisy_classifier import NoisyClassifierGuidance
from methods.self_calibrating import SelfCalibrating
from methods.supervised import Supervised
from methods.temporal_consistency import TemporalConsistency

MIXTURE = GaussianMixture.example((1, 2, 2), spread=0.8)
PROCESSES = {"ve": VarianceExploding(0.1, 5.0), "vp": ContinuousVP(), "discrete": DiscreteVP(100)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


class Smooth(nn.Module):
    """A network of one or two images whose logits have dense second derivatives."""

    def __init__(self, inputs: int = 1) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(4 * inputs + 1, 8), nn.Linear(8, 3)

    def features(self, x, log_sigma):
        images = [x] if isinstance(x, torch.Tensor) else x
        return torch.tanh(self.hidden(torch.cat([*(v.flatten(1) for v in images), log_sigma[:, None]], dim=1)))

    def forward(self, x, log_sigma):
        return self.head(self.features(x, log_sigma))


def batch() -> dict:
    return {"labeled": MIXTURE.sample(8), "unlabeled": MIXTURE.sample(4)[0]}


class Plain(NoisyClassifierGuidance):
    def losses(self, batch):
        return {}


@every_process
def test_the_term_is_that_of_self_calibration(process):
    denoiser, network, images = ExactDenoiser(MIXTURE, process), Smooth(), batch()
    found, expected = Calibrated(Plain(denoiser, network), 0.3), SelfCalibrating(denoiser, network, "all", 0.3)
    terms = []
    for method in (found, expected):
        torch.manual_seed(3)
        terms.append(method.losses(images)["calibrate"])
    assert torch.equal(*terms)


def test_the_other_terms_are_those_of_the_method():
    images = batch()
    inner = DenoisingAssisted(ExactDenoiser(MIXTURE, PROCESSES["vp"]), Smooth(2))
    torch.manual_seed(3)
    expected = inner.losses(images)
    torch.manual_seed(3)
    found = Calibrated(inner).losses(images)
    assert set(found) == {"classify", "calibrate"}
    assert found["classify"] == expected["classify"]


@every_process
def test_the_score_of_an_assisted_classifier_passes_through_the_estimate(process):
    """The classifier reads the estimate alone; its energy still has a slope in ``x_t``, and its weights gradients."""
    method = Calibrated(DenoisingAssisted(ExactDenoiser(MIXTURE, process), Smooth(2)))
    hidden = method.classifier.network.hidden
    with torch.no_grad():
        hidden.weight[:, :4] = 0  # those of the noisy image
    torch.manual_seed(3)
    found = method.losses(batch())["calibrate"]
    found.backward()
    assert hidden.weight.grad[:, 4:8].abs().sum() > 0
    with torch.no_grad():
        hidden.weight.zero_()
    torch.manual_seed(3)
    flat = method.losses(batch())["calibrate"]
    assert found != flat


def test_a_method_that_counts_steps_counts_those_of_the_training():
    denoiser = ExactDenoiser(MIXTURE, PROCESSES["vp"])
    inner = TemporalConsistency(denoiser, lambda d: NoisyClassifier(d, Smooth()), ramp=10)
    method = Calibrated(inner)
    method.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    assert inner.trainer is method.trainer


def test_a_classifier_of_clean_images_is_refused():
    with pytest.raises(ValueError, match="Supervised has no classifier of noisy images"):
        Calibrated(Supervised(nn.Linear(4, 3)))
