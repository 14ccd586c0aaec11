"""Which of a file's weights are taken: averages wherever they lie beside raw weights, under names without wrappers."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from methods.networks.published.choice import chosen, published_weights

RAW = {"a.weight": torch.zeros(2), "a.bias": torch.zeros(1)}
AVERAGE = {"a.weight": torch.ones(2), "a.bias": torch.ones(1)}
LIST = list(AVERAGE.values())


def under(prefix, weights):
    return {prefix + name: value for name, value in weights.items()}


PLAIN = {
    "flat": RAW,
    "with counters": {**RAW, "step": 3, "comment": "none"},
    "model": {"model": RAW, "optimizer": {"state": {}}, "step": 3},
    "state_dict": {"state_dict": RAW, "epoch": 2},
    "params": {"params": RAW},
    "a parallel wrapper": {"model": under("module.", RAW)},
    "a compiled network": under("_orig_mod.", RAW),
    "both": under("module._orig_mod.", RAW),
    "a compiled part": {"a._orig_mod.weight": RAW["a.weight"], "a._orig_mod.bias": RAW["a.bias"]},
    "averages that are none": {"model": RAW, "ema": None, "ema_decay": 0.999, "ema_config": {"decay": 0.9}},
    "DDIM's code": [RAW, {"state": {}}, 7, 800],
}


@pytest.mark.parametrize("found", PLAIN.values(), ids=PLAIN)
def test_weights_without_averages_are_taken_as_they_are(found):
    weights, averages = chosen(found)
    assert averages is None
    assert weights.keys() == RAW.keys()
    assert all(torch.equal(value, RAW[name]) for name, value in weights.items())


AVERAGED = {
    "score_sde": ({"model": RAW, "ema": {"decay": 0.9, "num_updates": 3, "shadow_params": LIST}}, "ema"),
    "ema": ({"model": RAW, "ema": AVERAGE, "opt": {}, "step": 3}, "ema"),
    "ema with shadow": ({"model": RAW, "ema": {"decay": 0.9, "shadow": AVERAGE}}, "ema"),
    "ema with a module": ({"model": RAW, "ema": {"updates": 9, "module": under("module.", AVERAGE)}}, "ema"),
    "model_ema": ({"model": RAW, "model_ema": AVERAGE}, "model_ema"),
    "ema_model": ({"model": under("module.", RAW), "ema_model": AVERAGE}, "ema_model"),
    "state_dict_ema": ({"state_dict": RAW, "state_dict_ema": under("module.", AVERAGE)}, "state_dict_ema"),
    "params_ema": ({"params": RAW, "params_ema": AVERAGE}, "params_ema"),
    "ema_state_dict": ({"model_state_dict": RAW, "ema_state_dict": AVERAGE}, "ema_state_dict"),
    "with the decay": ({"model": RAW, "ema_0.9999": AVERAGE, "ema_decay": 0.9999}, "ema_0.9999"),
    "shadow_params": ({"model": RAW, "shadow_params": LIST}, "shadow_params"),
    "averages alone": ({"ema": under("_orig_mod.", AVERAGE)}, "ema"),
    "by the beginning of names": ({**under("model.", RAW), **under("ema_model.", AVERAGE)}, "ema_model"),
    "a keeper of both": (
        {"ema": {"step": torch.ones(1), **under("online_model.", RAW), **under("ema_model.", AVERAGE)}}, "ema"
    ),
    "DDIM's code": ([RAW, {"state": {}}, 7, 800, AVERAGE], "ema"),
}  # fmt: skip


@pytest.mark.parametrize(("found", "place"), AVERAGED.values(), ids=AVERAGED)
def test_averages_are_taken_and_their_place_is_told(found, place, tmp_path, capsys):
    torch.save(found, tmp_path / "published.pth")
    weights = published_weights(tmp_path / "published.pth")
    assert capsys.readouterr().err == f"{tmp_path}/published.pth: the averaged weights are taken, {place}\n"
    assert weights.keys() == RAW.keys()
    assert all(torch.equal(value, AVERAGE[name]) for name, value in weights.items())


def test_torchs_own_averages_are_taken_without_their_counter():
    network = nn.Linear(2, 1)
    average = AveragedModel(network)
    average.update_parameters(network)
    network.weight.data += 1
    weights, _ = chosen({"model": network.state_dict(), "ema": average.state_dict()})
    assert weights.keys() == network.state_dict().keys()
    assert torch.equal(weights["weight"], network.weight - 1)


def test_what_has_no_average_stays_as_it_is():
    weights, _ = chosen({"model": {**RAW, "table": torch.full((3,), 7.0)}, "ema": AVERAGE})
    assert weights["table"].tolist() == [7, 7, 7]
    assert weights["a.bias"].tolist() == [1]


REFUSED = {
    "nothing": ([], "holds no weights by name"),
    "a number": (3, "holds no weights by name"),
    "no tensors": ({"model": {"a": 3}}, "holds no weights by name"),
    "two averages": (
        {"model": RAW, "ema_0.99": AVERAGE, "ema_0.9": AVERAGE},
        "several averages, ema_0.99, ema_0.9;",
    ),
    "averages of no known form": ({"model": RAW, "ema": {"here": AVERAGE}}, "averages under ema in a form that is not"),
    "a list alone": ({"ema": LIST}, "averages under ema without names, and no weights that have them"),
    "a short list": ({"model": RAW, "ema": LIST[:1]}, "a.bias has no average: 1 for 2 parameters"),
    "names twice": ({**RAW, **under("module.", RAW)}, "both with and without the names of a wrapper"),
}


@pytest.mark.parametrize(("found", "why"), REFUSED.values(), ids=REFUSED)
def test_what_leaves_a_doubt_is_refused(found, why):
    with pytest.raises(ValueError, match=why):
        chosen(found)


def test_weights_that_are_not_finite_are_refused_with_the_file(tmp_path):
    torch.save({"a.weight": torch.tensor([float("nan")])}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/x\.pt: a\.weight is not finite$"):
        published_weights(tmp_path / "x.pt")
