"""Feature networks: scale, batches, and Inception equal to torch-fidelity's own."""

import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from benchmark.errors import InputError
from benchmark.files import digest_file
from benchmark.metrics import features as module
from benchmark.metrics.features import ClassifierFeatures, InceptionFeatures, extract
from datamodules.grey_levels import GreyLevels


class SmallClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Dropout())
        self.head = nn.Linear(10, 4)
        self.body[2].running_var.fill_(3.0)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class RandomInception(FeatureExtractorInceptionV3):
    """torch-fidelity's network before weights are read: what it was built with."""

    def load_state_dict(self, state_dict, *args, **kwargs):
        return None


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A weights file of random numbers in the expected format; batch norms are not the identity."""
    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "none.pth")
    torch.manual_seed(0)
    network = RandomInception("random", ["2048"], feature_extractor_weights_path=folder / "none.pth")
    for block in network.modules():
        if hasattr(block, "bn"):
            nn.init.kaiming_normal_(block.conv.weight, nonlinearity="relu")
            block.bn.running_mean.normal_(0, 0.1)
            block.bn.running_var.uniform_(0.5, 1.5)
            block.bn.weight.uniform_(0.7, 1.3)
            block.bn.bias.normal_(0, 0.1)
    torch.save(network.state_dict(), folder / "weights.pth")
    return folder / "weights.pth"


def images(n: int, channels: int = 1, size: int = 8, levels: int = 17) -> Tensor:
    return torch.randint(0, levels, (n, channels, size, size), dtype=torch.uint8)


def test_reference_features_have_mean_zero_and_total_variance_their_dimension():
    network = ClassifierFeatures.fit(SmallClassifier(), GreyLevels(17).centre, "small", reference := images(300))
    features, probabilities = extract(network, reference)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-5)
    assert features.var(0, ddof=1).sum() == pytest.approx(10, rel=1e-5)
    assert np.ptp(features.std(0)) > 0.01  # one scale for all dimensions, not one each
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    again = ClassifierFeatures(network.classifier, network.to_x, "small", network.mean, float(network.scale))
    np.testing.assert_array_equal(extract(again, reference)[0], features)


def test_features_depend_neither_on_the_batch_size_nor_on_the_mode():
    network = ClassifierFeatures(SmallClassifier().train(), GreyLevels(17).centre, "small")
    x = images(50)
    whole = extract(network, x, batch_size=50)
    network.train()
    for one, other in zip(whole, extract(network, x.numpy(), batch_size=7), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        assert one.dtype == np.float32


def test_images_must_be_grey_levels():
    network = ClassifierFeatures(SmallClassifier(), GreyLevels(17).centre, "small")
    with pytest.raises(ValueError, match="images must be uint8"):
        extract(network, images(3).float() / 16)
    with pytest.raises(ValueError, match="the same for all 5 reference images"):
        ClassifierFeatures.fit(SmallClassifier(), GreyLevels(17).centre, "small", images(1).repeat(5, 1, 1, 1))


def test_inception_equals_torch_fidelitys_extractor(weights):
    """Pooled features, probabilities and the channels of sFID, of two coloured images and a grey one."""
    theirs = FeatureExtractorInceptionV3("i", ["2048", "logits_unbiased"], feature_extractor_weights_path=weights)
    branch = []
    theirs.Mixed_6d.branch1x1.register_forward_hook(lambda block, arguments, output: branch.append(output))
    colour, grey = images(2, 3, 32, 256), images(1, 1, 32, 256)
    expected, logits = theirs(torch.cat([colour, grey.repeat(1, 3, 1, 1)]))
    atol = 1e-5 * float(expected.abs().max())

    ours = InceptionFeatures(weights, sha256=digest_file(weights))
    features, probabilities = extract(ours, colour, batch_size=1)
    np.testing.assert_allclose(features, expected[:2], rtol=1e-5, atol=atol)
    np.testing.assert_allclose(probabilities, logits[:2].softmax(1), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(extract(ours, grey)[0], expected[2:], rtol=1e-5, atol=atol)
    assert ours.name == f"inception-v3-compat/pool@{digest_file(weights)[:8]}"

    ours.layer = "mixed_6d"
    spatial, again = extract(ours, colour[:1])
    assert spatial.shape == (1, 2023)
    np.testing.assert_allclose(spatial, branch[0][:1, :7].flatten(1), rtol=1e-5, atol=1e-5 * float(branch[0].max()))
    np.testing.assert_array_equal(again, probabilities[:1])


def test_resize_is_torch_fidelitys():
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as theirs

    x = images(2, 3, 11, 256).float()[..., :7]
    torch.testing.assert_close(module.resize(x, 29), theirs(x, size=(29, 29), align_corners=False), rtol=0, atol=1e-4)


def test_without_network_one_line_names_the_option(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refused(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refused)
    with pytest.raises(InputError, match=r"cannot download .*no route to host.*option `weights`") as caught:
        InceptionFeatures()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.pth"))


def test_downloaded_weights_are_kept_and_checked(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    source = tmp_path / "source"
    source.write_bytes(b"not the weights")
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: source.open("rb"))
    with pytest.raises(InputError, match="has sha256"):
        InceptionFeatures()
    assert (tmp_path / "checkpoints" / module.INCEPTION_FILE).read_bytes() == b"not the weights"


def test_weights_are_checked_before_they_are_read(weights, tmp_path):
    with pytest.raises(InputError, match=f"sha256 {digest_file(weights)}, expected {module.INCEPTION_SHA256}"):
        InceptionFeatures(weights)
    with pytest.raises(InputError, match="no file"):
        InceptionFeatures(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="layer must be pool or mixed_6d, got 2048"):
        InceptionFeatures(weights, layer="2048")
