"""Gradients along images, steps of samples and counterfactuals: mixtures of Gaussians have known answers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles import ExactClassifier, ExactDenoiser, GaussianMixture

from benchmark.answers.alignment import alignment
from benchmark.answers.counterfactual import counterfactual
from benchmark.answers.steps import steps
from benchmark.records.guided import alignment_records, counterfactual_records, steps_records
from benchmark.suite.cells import Cell
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage
from benchmark.system.arrays import load_arrays, save_arrays
from benchmark.system.images import draw_images
from datamodules.grey_levels import GreyLevels
from methods.base import Method
from methods.diffusion.process import VarianceExploding
from methods.diffusion.samplers import DDIM, DPMSolver2Multistep, Heun, PredictorCorrector

SHAPE, CLASSES = (1, 2, 2), 3
PROCESS = VarianceExploding(sigma_min=0.01, sigma_max=5.0)
PROTOCOL = Protocol(samples=24, test_images=18, denoise_times=(0.5, 0.8), batch=7)
GREY = GreyLevels(256)
POINTS = GREY.centre(torch.tensor([[30, 60, 90, 120], [200, 10, 100, 150], [90, 220, 40, 240]])).view(3, *SHAPE)
"""Means of the classes, at centres of grey levels."""


class Exact(Method):
    """A mixture's exact denoiser and classifier."""

    def __init__(self, mixture, sampler, classifier=None):
        exact = ExactClassifier(mixture, PROCESS) if classifier is None else classifier
        super().__init__(ExactDenoiser(mixture, PROCESS), exact, sampler)

    def losses(self, batch):
        return {}


def points():
    """Classes that are hardly more than a point each."""
    return GaussianMixture(POINTS, torch.full((3,), 1e-8))


def data(images=18):
    y = torch.arange(images) % CLASSES
    return SimpleNamespace(
        grey=GREY, shape=SHAPE, classes=CLASSES, task_classes=np.arange(CLASSES), task_class_names=["a", "b", "c"],
        some_images=lambda part, count, seed: (GREY.quantise(POINTS[y[:count]]), y[:count]),
    )  # fmt: skip


def job(folder, *scales):
    config = {"model": {"class_path": "methods.noisy_classifier.NoisyClassifierGuidance"}}
    cell = Cell("cell", config="a.yaml", guidance_scales=list(scales))
    return Job(cell, 0, "evaluate", folder, (), folder, config=config)


def recorded(records, of_job):
    return {(r.metric, r.protocol.get("guidance_scale")): r for r in records(of_job, PROTOCOL)}


def asked(question, method, folder, at=None, **more):
    """Answer a question at a scale, as a job does."""
    if at is not None:
        method.guidance_scale = at
    Stage(question.__name__, "key", scale=at).complete(
        folder, lambda: question(method, data(), PROTOCOL, folder, lambda *_: None, **more)
    )


def aligned(folder, classifier=None):
    method = Exact(points(), None, classifier)
    asked(alignment, method, folder)
    return {metric: record.value for (metric, _), record in recorded(alignment_records, job(folder)).items()}


def test_between_points_the_true_gradient_is_what_denoising_misses(tmp_path):
    """``x - D(x_t)`` is ``sigma^2 / alpha`` times the gradient if a class has one image alone."""
    found = aligned(tmp_path)
    assert found["gradient/alignment/t=0.8"] == pytest.approx(1, abs=1e-3)
    assert found["gradient/alignment"] == found["gradient/alignment/t=0.35"] == 0  # each class is certain: no gradient
    assert found["gradient/scale/t=0.8"] == pytest.approx(1, abs=1e-3)  # so that scale 1 is the true guidance
    times = load_arrays(tmp_path / "alignment.npz")["times"]
    np.testing.assert_allclose(times, [0.3, 0.35, 0.5, 0.8])


class Halved(ExactClassifier):
    """The exact posterior with half its gradient."""

    def forward(self, x_t, t):
        exact = super().forward(x_t, t)
        return 0.5 * exact + 0.5 * exact.detach()


def test_half_the_gradient_asks_for_twice_the_scale(tmp_path):
    found = aligned(tmp_path, Halved(points(), PROCESS))
    assert found["gradient/scale/t=0.8"] == pytest.approx(2, abs=1e-3)
    assert "gradient/scale/t=0.35" not in found  # each class is certain: there is no gradient to scale


class Turned(ExactClassifier):
    """The exact posterior with the classes turned round."""

    def forward(self, x_t, t):
        return -super().forward(x_t, t)


class Indifferent(ExactClassifier):
    def forward(self, x_t, t):
        return 0 * super().forward(x_t, t)


def test_a_classifier_that_looks_the_other_way_is_not_aligned_and_one_that_does_not_look_has_zero(tmp_path):
    assert aligned(tmp_path, Turned(points(), PROCESS))["gradient/alignment/t=0.8"] < 0.2
    found = aligned(tmp_path, Indifferent(points(), PROCESS))
    assert found["gradient/alignment"] == found["gradient/smoothness"] == 0


def test_what_denoising_misses_stands_for_the_exact_gradient():
    """``E <g, x - D> = sigma^2 / alpha E <g, exact>`` for any field ``g`` of ``(x_t, y)``."""
    torch.manual_seed(0)
    mixture = GaussianMixture.example(SHAPE)
    x, y = mixture.sample(20_000)
    t = torch.full((len(x),), 0.6)
    x_t, _ = PROCESS.perturb(x, t)
    alpha, sigma = PROCESS.scales(t[:1], like=x)
    scales = (alpha.flatten(), sigma.flatten())
    exact = mixture.score(x_t, *scales, y) - mixture.score(x_t, *scales)
    turn = torch.randn(4, 4, dtype=torch.float64)
    for g in (exact, (exact.flatten(1) @ turn).view_as(exact), x_t * (y + 1).view(-1, 1, 1, 1)):
        missed = (g * (x - mixture.denoise(x_t, *scales))).sum((1, 2, 3))
        known = (sigma**2 / alpha).item() * (g * exact).sum((1, 2, 3))
        difference = missed - known
        assert abs(difference.mean()) < 4 * difference.std() / len(x) ** 0.5


@pytest.mark.parametrize("kind", [DDIM, Heun, PredictorCorrector, DPMSolver2Multistep])
def test_steps_are_those_of_the_stored_samples(tmp_path, kind):
    sampler = kind(12)
    method = Exact(GaussianMixture.example(SHAPE), sampler)
    asked(steps, method, tmp_path, 2.0, scale=2.0)
    found = load_arrays(tmp_path / "steps@2.npz")
    stored = draw_images(method, data(), range(10), torch.arange(24) % CLASSES, 0, 7, lambda n: None)
    assert found["probabilities"].shape == (12, 24, 3)
    np.testing.assert_allclose(found["times"], sampler.times(PROCESS), atol=1e-12)
    np.testing.assert_allclose(found["probabilities"].sum(2), 1, atol=1e-5)
    assert list(found["strip"][[0, -1]]) == [0, 11]
    if sampler.evaluations_per_step == 1 or isinstance(sampler, Heun):  # a last corrector moves once more
        last = torch.from_numpy(found["denoised"][-1])
        np.testing.assert_array_equal(GREY.quantise(last).numpy(), stored)


def test_the_class_of_each_step_is_counted_from_noise_to_image(tmp_path):
    predicted = np.array([[0, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 1]])  # (L, N)
    save_arrays(
        tmp_path / "steps@1.npz", probabilities=np.eye(2)[predicted], labels=np.array([0, 0, 0]),
        strip=np.array([0, 3]), times=np.array([1, 0.6, 0.3, 0.0]), sigmas=np.array([9, 3, 1, 0.1]),
    )  # fmt: skip
    Stage("steps", "key", scale=1.0).complete(tmp_path, lambda: {"outputs": ["steps@1.npz"], "judged": True})
    found = recorded(steps_records, job(tmp_path, 1.0))
    assert found["steps/asked", 1].value == pytest.approx((4 + 2 + 1) / 12)
    assert found["steps/decided", 1].value == pytest.approx((0 + 2 + 2) / 12)
    assert (found["steps/asked/t=1.000", 1].value, found["steps/asked/t=0.000", 1].value) == (1 / 3, 2 / 3)


def test_a_counterfactual_of_points_is_the_other_point_and_without_a_class_the_image_itself(tmp_path):
    method = Exact(points(), DDIM(20))
    asked(counterfactual, method, tmp_path, 1.0, scale=1.0, reference=method)
    asked(counterfactual, method, tmp_path, 0.0, scale=0.0, reference=method)
    arrays = load_arrays(tmp_path / "counterfactual@1.npz")
    assert (arrays["asked"] != arrays["labels"]).all()
    assert {(a, b) for a, b in zip(arrays["labels"], arrays["asked"], strict=True)} == {
        (a, b) for a in range(3) for b in range(3) if a != b
    }
    np.testing.assert_array_equal(arrays["unguided"], arrays["original"])
    np.testing.assert_array_equal(arrays["changed"], GREY.quantise(POINTS[arrays["asked"]]).permute(0, 2, 3, 1))
    found = recorded(counterfactual_records, job(tmp_path, 0.0, 1.0))
    apart = (POINTS[arrays["asked"]] - POINTS[arrays["labels"]]).square().mean((1, 2, 3)).sqrt()
    assert found["counterfactual/distance", 1].value == pytest.approx(apart.mean().item(), rel=1e-5)
    assert found["counterfactual/asked", 1].value == found["counterfactual/own", 1].value == 1
    assert found["counterfactual/kept", 1].value == found["counterfactual/distance_unguided", 1].value == 0
    assert found["counterfactual/asked", 0].reason == "not guided towards a class"


def test_the_noise_of_a_counterfactual_is_a_fifth_of_all(tmp_path):
    method = Exact(points(), DDIM(21))
    asked(counterfactual, method, tmp_path, 1.0, scale=1.0, reference=method)
    (record,) = [r for (m, _), r in recorded(counterfactual_records, job(tmp_path, 1.0)).items() if m.endswith("own")]
    assert record.protocol["sigma"] == pytest.approx(PROCESS.sigma(torch.tensor([0.2])).item(), rel=1e-3)


def test_methods_that_cannot_answer_say_why(tmp_path):
    silent = Exact(points(), None)
    asked(steps, silent, tmp_path, 1.0, scale=1.0)
    asked(counterfactual, silent, tmp_path, 1.0, scale=1.0, reference=silent)
    silent.classifier = torch.nn.Flatten()
    asked(alignment, silent, tmp_path)
    for records, reason in (
        (steps_records, "does not generate"),
        (counterfactual_records, "does not generate"),
        (alignment_records, "reads clean images only"),
    ):
        assert {r.reason for r in records(job(tmp_path, 1.0), PROTOCOL)} == {reason}
