"""Networks compiled for training compute what they did, and what cannot be compiled is said once."""

import pytest
import spread_training
import torch
from torch import nn

from benchmark.errors import InputError
from benchmark.training import callbacks as compiled_networks
from benchmark.training.build import build
from benchmark.training.callbacks import ENTRIES
from methods.base import networks_of

CPU = "--trainer.devices=1"


def words(config, *more):
    return [f"--config=configs/digits/{config}.yaml", "--compile=true", "--trainer.logger=false", *more]


@pytest.fixture
def traced(monkeypatch):
    """Compiles without generating code, and counts the networks' methods."""
    compiled = []

    def trace(function):
        compiled.append(function)
        return torch._dynamo.optimize("aot_eager")(function)

    monkeypatch.setattr(compiled_networks.torch, "compile", trace)
    return compiled


@pytest.mark.slow
@pytest.mark.parametrize("name", ["score_model", "joint"])
def test_compiled_networks_train_as_they_are(name, traced, tmp_path):
    expected = spread_training.train(name, tmp_path / "a", CPU, steps=2)
    assert not traced
    found = spread_training.train(name, tmp_path / "b", CPU, "--compile=true", steps=2)
    assert len(traced) == 4  # sine; forward, encode and decode
    for part in ("steps", "raw", "final"):
        torch.testing.assert_close(found[part], expected[part], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_generated_code_trains_alike(tmp_path):
    expected = spread_training.train("supervised", tmp_path / "a", CPU, steps=2)
    found = spread_training.train("supervised", tmp_path / "b", CPU, "--compile=true", steps=2)
    for part in ("steps", "raw", "final"):
        torch.testing.assert_close(found[part], expected[part], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", ["cdm", "cdm_conditional", "self_calibrating", "few_cg_sc_labeled"])
def test_a_loss_of_second_derivatives_is_refused_in_one_line(config):
    with pytest.raises(InputError, match=r"^compile must be false for \w+: its loss needs second derivatives"):
        build(words(config))


def test_classification_diffusion_by_cross_entropy_alone_is_not(traced):
    assert not build(words("cdm", "--model.init_args.mse_weight=0")).model.second_order


def test_where_nothing_can_be_compiled_networks_stay_as_they_are_after_one_warning(monkeypatch, tmp_path, capsys):
    def fail(function):
        raise RuntimeError("no compiler\nfound")

    monkeypatch.setattr(compiled_networks.torch, "compile", fail)
    found = spread_training.train("supervised", tmp_path, CPU, "--compile=true", steps=1)
    assert len(found["steps"]) == 1
    warning = "warning: compile is on, but nothing can be compiled here: no compiler found\n"
    assert capsys.readouterr().err.count(warning) == 1


def test_a_frozen_denoiser_is_compiled_with_the_method_that_looks_through_it():
    for config, count in (("denoising_assisted", 2), ("supervised", 1), ("joint", 1), ("gaussian", 0)):
        method = build([f"--config=configs/digits/{config}.yaml", "--trainer.logger=false"]).model
        assert len(networks_of(method)) == count
        for network in networks_of(method):
            assert isinstance(network, nn.Module)
            assert not network.__dict__.keys() & set(ENTRIES)
