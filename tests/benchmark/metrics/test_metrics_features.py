"""Feature networks: scale, batches, and Inception equal to torch-fidelity's own."""

import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import VisionTransformer
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from benchmark.errors import InputError
from benchmark.metrics import published_networks as module
from benchmark.metrics.features import ClassifierFeatures, extract
from benchmark.metrics.fidelity import inception_score, kernel_distance
from benchmark.metrics.frechet import Statistics, frechet_estimate
from benchmark.metrics.neighbours import precision_recall
from benchmark.metrics.published_networks import (
    ClipFeatures,
    EfficientNetLiteFeatures,
    InceptionFeatures,
    resize,
    weights_file,
)
from benchmark.system.arrays import StoredRows, save_arrays
from benchmark.system.files import digest_file
from datamodules.grey_levels import GreyLevels

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


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
    features, probabilities = extract(network, reference).values()
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-5)
    assert features.var(0, ddof=1).sum() == pytest.approx(10, rel=1e-5)
    assert np.ptp(features.std(0)) > 0.01  # one scale for all dimensions, not one each
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    again = ClassifierFeatures(network.classifier, network.to_x, "small", network.mean, float(network.scale))
    np.testing.assert_array_equal(extract(again, reference)["features"], features)


def test_features_depend_neither_on_the_batch_size_nor_on_the_mode():
    network = ClassifierFeatures(SmallClassifier().train(), GreyLevels(17).centre, "small")
    x = images(50)
    whole = extract(network, x, batch_size=50)
    network.train()
    for one, other in zip(whole.values(), extract(network, x.numpy(), batch_size=7).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        assert one.dtype == np.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_features_of_stored_images_are_those_of_the_same_images_in_memory(tmp_path, channels):
    x = images(50, channels).permute(0, 2, 3, 1).contiguous()
    save_arrays(tmp_path / "a.npz", images=x.numpy())
    stored, in_memory = StoredRows(tmp_path / "a.npz", "images"), x.permute(0, 3, 1, 2)
    levels = GreyLevels(17)
    network = ClassifierFeatures(SmallClassifier(), lambda u: levels.centre(u).mean(1, keepdim=True), "small")
    found, wanted = (extract(network, some, batch_size=7) for some in (stored, in_memory))
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


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
    found = extract(ours, colour, batch_size=1)
    features, probabilities, spatial = found["features"], found["probabilities"], found["spatial"]
    np.testing.assert_allclose(features, expected[:2], rtol=1e-5, atol=atol)
    np.testing.assert_allclose(probabilities, logits[:2].softmax(1), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(extract(ours, grey)["features"], expected[2:], rtol=1e-5, atol=atol)
    assert spatial.shape == (2, 2023)
    np.testing.assert_allclose(spatial, branch[0][:2, :7].flatten(1), rtol=1e-5, atol=1e-5 * float(branch[0].max()))
    assert ours.name == f"inception-v3-compat@{digest_file(weights)[:8]}"


@pytest.mark.slow
def test_metrics_from_images_are_torch_fidelitys(weights):
    """FID, KID, IS, precision and recall of the same grey levels, from pixels to numbers."""
    from torch_fidelity import calculate_metrics

    class Levels(torch.utils.data.Dataset):
        def __init__(self, x: Tensor) -> None:
            self.x = x

        def __len__(self) -> int:
            return len(self.x)

        def __getitem__(self, i: int) -> Tensor:
            return self.x[i]

    fake, real = images(60, 3, 32, 256), images(60, 3, 32, 200)
    theirs = calculate_metrics(
        input1=Levels(fake), input2=Levels(real), cuda=False, verbose=False, save_cpu_ram=True, samples_shuffle=False,
        fid=True, kid=True, isc=True, prc=True, kid_subsets=1, kid_subset_size=60, isc_splits=3,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights),
    )  # fmt: skip
    network = InceptionFeatures(weights, sha256=digest_file(weights))
    a, b = extract(network, fake)["features"], extract(network, real)["features"]
    distance = frechet_estimate(Statistics.of(b), a).value
    np.testing.assert_allclose(distance, theirs["frechet_inception_distance"], rtol=1e-4)
    kernel = kernel_distance(b, a)
    np.testing.assert_allclose(kernel.value, theirs["kernel_inception_distance_mean"], rtol=1e-4)
    score = inception_score(extract(network, fake)["probabilities"], splits=3, seed=None)
    np.testing.assert_allclose(score.value, theirs["inception_score_mean"], rtol=1e-4)
    found = precision_recall(b, a)
    assert (found.precision.value, found.recall.value) == (theirs["precision"], theirs["recall"])


def test_resize_is_torch_fidelitys():
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as theirs

    x = images(2, 3, 11, 256).float()[..., :7]
    torch.testing.assert_close(resize(x, 29), theirs(x, size=(29, 29), align_corners=False), rtol=0, atol=1e-4)


def test_without_network_one_line_names_the_option(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refused(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refused)
    with pytest.raises(InputError, match=r"cannot download .*no route to host.*name that by --weights") as caught:
        InceptionFeatures()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.pth"))


def test_a_download_that_is_not_the_weights_is_not_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    source = tmp_path / "source"
    source.write_bytes(b"not the weights")
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: source.open("rb"))
    with pytest.raises(InputError, match="has sha256"):
        InceptionFeatures()
    assert not list((tmp_path / "checkpoints").iterdir())


def test_weights_are_checked_before_they_are_read(weights, tmp_path):
    with pytest.raises(InputError, match=f"sha256 {digest_file(weights)}, expected {module.INCEPTION_SHA256}"):
        InceptionFeatures(weights)
    with pytest.raises(InputError, match="no weights at"):
        InceptionFeatures(tmp_path / "absent.pth")


def test_weights_in_the_named_folder_come_first(monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFCLASS_WEIGHTS", str(tmp_path))
    (tmp_path / "some.pth").write_bytes(b"numbers")
    found = weights_file("some.pth", "https://nowhere.invalid/some.pth", digest_file(tmp_path / "some.pth"))
    assert found == tmp_path / "some.pth"


class ClipModel(nn.Module):
    """A CLIP of one narrow layer, under the names that its published archive has."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = VisionTransformer(
            input_resolution=64, patch_size=32, width=64, layers=1, heads=1, output_dim=16
        )  # fmt: skip
        self.text_projection = nn.Parameter(torch.zeros(3, 16))

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_clip_equals_its_own_definition(tmp_path):
    """Features of an archive in the published format, against the network that was put into it."""
    torch.manual_seed(0)
    model = ClipModel().half().float()  # torch-fidelity keeps its weights in half precision
    file = tmp_path / "clip.pt"
    torch.jit.script(model).save(str(file))
    x = images(3, 3, 40, 256)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    with torch.no_grad():
        expected = model.visual((resize(x.float(), 64) / 255 - mean) / std)
    ours = ClipFeatures(file, sha256=digest_file(file))
    np.testing.assert_allclose(extract(ours, x, batch_size=2)["features"], expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="expected 40d365715913"):
        ClipFeatures(file, sha256="40d365715913")


def test_the_offline_network_tells_natural_images_apart():
    """It sees a monastery, a palace or a bell cote in the temple, and a daisy in the flower."""
    pytest.importorskip("efficientnet_lite_pytorch")
    from sklearn.datasets import load_sample_image

    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    x = torch.stack([torch.from_numpy(photo[:420, :420].copy()).permute(2, 0, 1) for photo in photos])
    found = extract(EfficientNetLiteFeatures(), x, batch_size=1)
    assert found["features"].shape == (2, 1280)
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, rtol=1e-5)
    temple, flower = found["probabilities"].argsort(1)
    assert temple[-1] in (442, 663, 698)
    assert 985 in flower[-2:]


def test_folded_and_cut_the_offline_network_is_its_package_s():
    """Normalisation folded into convolutions, and four images at once, give what the package gives for all at once."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    theirs = package.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(EfficientNetLiteFeatures.weights(), map_location="cpu", weights_only=True))
    images = torch.randint(0, 256, (6, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        found = EfficientNetLiteFeatures().eval()(images)
        maps = theirs.extract_features((images.float() - 127) / 128)
        pooled, logits = maps.mean((2, 3)), theirs((images.float() - 127) / 128)
    torch.testing.assert_close(found["features"], pooled, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["probabilities"], logits.softmax(1), rtol=1e-4, atol=1e-6)
