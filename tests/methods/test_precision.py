"""Under bfloat16 autocast, as `trainer.precision: bf16-mixed` trains, what is added up stays in single precision."""

from pathlib import Path

import pytest
import torch
from test_contract import CONFIGS, METHODS, answers, entries, random_weights, ready

from benchmark.training.build import build

TRAINED = {name: config for name, config in METHODS.items() if "optimizer" in config}


def built(name: str, folder: Path):
    """A method with weights that no zero at the start hides, and its data."""
    config = TRAINED[name]
    steps = [*entries(config, "sampler"), *entries(config, "likelihood")]
    cli = build(
        [f"--config={CONFIGS / name}.yaml", "--trainer.logger=false",
         *(f"--{path}={folder / f'weights{n}'}" for n, (path, _) in enumerate(entries(config, "checkpoint"))),
         *(f"--{path}=2" for path, count in entries(config, "times") if isinstance(count, int)),
         *(f"--{path}.init_args.steps=3" for path, part in steps if "steps" in part.get("init_args", {}))]
    )  # fmt: skip
    random_weights(cli.model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in cli.model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return cli.model, cli.datamodule


def losses(method, batch, autocast: bool):
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return method.losses(batch)


@pytest.fixture(scope="module", params=TRAINED)
def case(request, tmp_path_factory):
    method, data = built(request.param, tmp_path_factory.mktemp("weights"))
    if hasattr(method, "class_prior"):
        method.class_prior, method.ramp = data.class_prior, 0
    return method, data


def test_losses_are_single_precision_and_within_a_few_per_cent(case):
    method, data = case
    batch = data.train_dataloader().batch(0)
    exact, found = (losses(method.train(), batch, autocast) for autocast in (False, True))
    for name, term in exact.items():
        assert found[name].dtype == torch.float32, name
        torch.testing.assert_close(found[name], term, rtol=0.05, atol=0.01, msg=name)


def test_logits_and_log_densities_are_single_precision_and_close(case):
    method, data = case
    ready(method.eval())
    exact = answers(method, data, [3, 0, 4, 1])
    with torch.autocast("cpu", torch.bfloat16):
        found = answers(method, data, [3, 0, 4, 1])
    method.requires_grad_(True)
    for question, answer in found.items():
        assert answer.dtype == torch.float32, question
        if not question.startswith("sample"):
            spread = float(exact[question].std())
            torch.testing.assert_close(answer, exact[question], rtol=0.02, atol=0.1 * spread, msg=question)


def test_a_method_says_whether_its_loss_takes_second_derivatives(case, monkeypatch):
    method, data = case
    taken, grad = [], torch.autograd.grad

    def watched(*arguments, create_graph=False, **options):
        taken.append(create_graph)
        return grad(*arguments, create_graph=create_graph, **options)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    losses(method.train(), data.train_dataloader().batch(0), autocast=False)
    assert any(taken) == method.second_order
