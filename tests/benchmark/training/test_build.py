"""Builds of one process: none changes the next, and settings come out as they went in."""

import pytest
import torch
import yaml
from torch import nn

from benchmark.suite.settings import CONTENT
from benchmark.training.build import build, resolve, weightless

WORDS = ("--config=toy2d/supervised.yaml", "--trainer.logger=false")


def dumped(*words):
    cli = build([*WORDS, *words])
    return cli.parser.dump(cli.config, skip_link_targets=False, skip_unset=False)


def test_a_build_leaves_nothing_behind_for_the_next():
    before = dumped()
    changed = dumped(
        "--trainer.max_steps=3", "--data=datamodules.digits.Digits", "--ema.decay=0.5", "--needs={a: {b: c}}"
    )
    assert changed != before
    with pytest.raises(Exception, match="max_step"):
        build([*WORDS, "--trainer.max_step=3"])
    assert dumped() == before


def test_a_resolved_configuration_is_the_dump_of_the_settings():
    found = resolve({"cell": WORDS[:1]})["cell"]
    assert {key: value for key, value in found.items() if key != CONTENT} == yaml.safe_load(dumped())


def test_weights_without_data_are_not_initialised_and_later_ones_are():
    own = {name: getattr(nn.init, name) for name in ("uniform_", "kaiming_uniform_", "zeros_")}
    with weightless():
        layer = nn.Linear(4, 4)
        assert layer.weight.is_meta
        assert nn.init.zeros_(layer.weight) is layer.weight
    with pytest.raises(ValueError, match="divisible"), weightless():
        nn.Conv2d(3, 4, 1, groups=2)
    assert {name: getattr(nn.init, name) for name in own} == own
    assert torch.equal(nn.init.zeros_(nn.Linear(2, 2).weight), torch.zeros(2, 2))
