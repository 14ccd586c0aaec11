"""Classifiers of timm: what they are shown, where their weights come from, and what is refused in one line."""

import pytest
import timm
import torch

from methods.networks.external import TimmClassifier
from methods.supervised import Supervised

NAME = "resnet10t"


def test_images_are_scaled_and_normalised_as_the_classifier_wants_them_and_grey_ones_get_three_channels():
    network = TimmClassifier(NAME, classes=4).eval()
    config = network.model.pretrained_cfg
    x = torch.rand(2, 1, *config["input_size"][1:]) * 2 - 1
    mean, std = (torch.tensor(config[part]).view(3, 1, 1) for part in ("mean", "std"))
    expected = network.model((((x + 1) / 2).expand(-1, 3, -1, -1) - mean) / std)
    torch.testing.assert_close(network(x), expected)
    torch.testing.assert_close(network.model.get_classifier()(network.features(x)), expected)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def test_weights_of_a_file_are_those_of_a_judge_that_is_not_trained(tmp_path):
    theirs = timm.create_model(NAME, num_classes=4).eval()
    torch.save(theirs.state_dict(), tmp_path / "judge.pt")
    method = Supervised(TimmClassifier(NAME, 4, weights=str(tmp_path / "judge.pt"))).eval()
    method.setup("fit")
    x = torch.rand(2, 3, *method.classifier.network.size) * 2 - 1
    torch.testing.assert_close(method.classify(x), theirs(method.classifier.network._prepared(x)))


def test_a_network_to_be_trained_has_nothing_to_start_from():
    assert Supervised(TimmClassifier(NAME, 4)).start is None


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"timm has no model 'resnet11'; did you mean resnet"):
        TimmClassifier("resnet11", 4)
    with pytest.raises(FileNotFoundError, match=r"no weights of resnet10t at .*none\.pt; name a local file"):
        TimmClassifier(NAME, 4, weights=str(tmp_path / "none.pt")).start()
    torch.save(timm.create_model(NAME, num_classes=3).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt are no weights of timm's resnet10t with 4 classes"):
        TimmClassifier(NAME, 4, weights=str(tmp_path / "other.pt")).start()
    for content, why in ((b"<!DOCTYPE html>", "cannot be read as weights alone"), (b"", "cannot be read")):
        (tmp_path / "page.pth").write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{tmp_path}/page\.pth {why}"):
            TimmClassifier(NAME, 4, weights=str(tmp_path / "page.pth")).start()


def test_averages_are_taken_where_the_file_has_both(tmp_path):
    theirs, raw = timm.create_model(NAME, num_classes=4), timm.create_model(NAME, num_classes=4)
    torch.save({"state_dict": raw.state_dict(), "state_dict_ema": theirs.state_dict()}, tmp_path / "both.pth")
    ours = TimmClassifier(NAME, 4, weights=str(tmp_path / "both.pth"))
    ours.start()
    assert torch.equal(ours.model.conv1[0].weight, theirs.conv1[0].weight)


def test_weights_that_cannot_be_downloaded_are_told_with_the_key_of_a_local_file(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route\nto anywhere")

    network = TimmClassifier(NAME, 4, weights="published")
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConnectionError, match=r"^weights of resnet10t .*: no route; name a local file by the key"):
        network.start()
