"""The real images that samples are compared with, and statistics of more of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmark.answers.features import REFERENCE, real_features, real_images
from benchmark.metrics.features import ClassifierFeatures, extract
from benchmark.metrics.frechet import Statistics
from benchmark.records.generation import Real
from benchmark.suite.protocol import Protocol
from datamodules.digits import Digits
from methods.networks.wrn import WideResNet


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Function of a protocol: the real images of digits, as a folder keeps them, and a random reference."""
    data = Digits()
    torch.manual_seed(0)
    network = WideResNet(1, data.classes, depth=10, width=1, noise=False).eval()
    reference = SimpleNamespace(classifier=network, device=torch.device("cpu"))

    def judged(**settings):
        folder, protocol = tmp_path_factory.mktemp("reference"), Protocol(**settings)
        real_images(data, protocol, folder)
        real_features(REFERENCE, reference, data, protocol, folder, lambda *_: None)
        with np.load(folder / "real.npz") as images:
            return Real(folder, REFERENCE, dict(images)), reference, data

    return judged


def test_statistics_of_all_images_beside_features_of_some(judged):
    real, reference, data = judged(real_images=60, whole_statistics=True)
    assert (len(real.seen["features"]), real.kept, real.counted) == (60, "60 of train", "train")
    centre, scale = real.seen["centre"], float(real.seen["scale"])
    network = ClassifierFeatures(reference.classifier, data.grey.centre, REFERENCE, centre, scale)
    found, expected = real.statistics["features"], Statistics.of(extract(network, data.images("train")[0])["features"])
    assert found.n == expected.n == len(data.splits["train"])
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-3, atol=1e-4)


def test_numbers_say_how_many_images_they_are_against(judged):
    some, _, _ = judged(real_images=60)
    every, _, _ = judged()
    assert (some.kept, some.counted) == ("60 of train", "60 of train")
    assert (every.kept, every.counted) == ("train", "train")
