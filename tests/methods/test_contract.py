"""What must hold of every method that a configuration describes, as it is built from its file and trained a little."""

import inspect
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from benchmark.suite.settings import NOT_TRAINING
from benchmark.training.build import build
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method, Unsupported
from methods.diffusion.denoiser import Pretrained
from methods.diffusion.process import ContinuousVP

CONFIGS = Path(__file__).parents[2] / "configs" / "digits"
DECAYING = {"class_path": "methods.diffusion.process.ContinuousVP"}


def read(path: Path) -> Any:
    """A configuration with the files that it includes in their place."""

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: resolve(value) for key, value in node.items()}
        if isinstance(node, list):
            return [resolve(value) for value in node]
        return read(path.parent / node) if isinstance(node, str) and node.endswith(".yaml") else node

    return resolve(yaml.safe_load(path.read_text()))


def entries(node: Any, key: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry called ``key`` of a configuration, as its dotted path and its value."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield prefix + name, value
            yield from entries(value, key, f"{prefix}{name}.")


FILES = {path.stem: read(path) for path in sorted(CONFIGS.glob("*.yaml"))}
METHODS = {name: config for name, config in FILES.items() if "model" in config}


def cases(decaying: bool) -> list[Any]:
    """Every configuration; or, of each method whose noise explodes, the first one with a decaying signal instead."""
    if not decaying:
        return [pytest.param((name, ()), id=name) for name in METHODS]
    found = {}
    for name, config in METHODS.items():
        exploding = [p for p, v in entries(config, "process") if v["class_path"].endswith("VarianceExploding")]
        overrides = tuple(f"--{path}={json.dumps(DECAYING)}" for path in exploding)
        if exploding:
            found.setdefault(config["model"]["class_path"], pytest.param((name, overrides), id=f"{name}-vp"))
    return list(found.values())


class Outputs(Callback):
    """Keeps what each training step returns."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.steps.append({name: term.detach().clone() for name, term in outputs.items()})


class Case:
    """One configuration: built, trained for two steps, validated, put in evaluation mode and asked everything once."""

    def __init__(self, name: str, overrides: Sequence[str], folder: Path) -> None:
        config = METHODS[name]
        steps = [*entries(config, "sampler"), *entries(config, "likelihood")]
        batches = ["batch_size", "unlabeled_batch_size"] if "optimizer" in config else []  # else fitted to all images
        self.arguments = [
            f"--config={CONFIGS / name}.yaml",
            *overrides,
            *(f"--{path}={folder / f'weights{n}'}" for n, (path, _) in enumerate(entries(config, "checkpoint"))),
            *(f"--{path}.init_args.steps=3" for path, part in steps if "steps" in part.get("init_args", {})),
            *(f"--{path}=2" for path, count in entries(config, "times") if isinstance(count, int)),
            *(f"--{path}=8" for key in batches for path, _ in entries(config, key)),
            "--data.init_args.validation_fraction=0.03",
            "--trainer.max_steps=2",
            "--trainer.accelerator=cpu",
            "--trainer.logger=false",
            "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={folder}",
        ]
        cli, outputs = build(self.arguments), Outputs()
        self.method, self.data = cli.model, cli.datamodule
        random_weights(self.method)
        cli.trainer.callbacks.append(outputs)
        cli.trainer.fit(self.method, datamodule=self.data)
        self.steps = outputs.steps
        (self.validation,) = cli.trainer.validate(self.method, datamodule=self.data, verbose=False)
        self.answers = answers(ready(self.method), self.data, ROWS)


SHOWN = ("feature_variance",)
"""Names of what training shows beside the terms of a loss."""
ROWS = [3, 0, 4, 1]
"""Test images that are asked about, and numbers of the samples."""


def ready(method: Method) -> Method:
    return method.eval().requires_grad_(False)


def answers(method: Method, data: ImageData, rows: list[int]) -> dict[str, Tensor]:
    """All that a method can be asked about the test images ``rows``, and the samples of those numbers."""
    u, y = data.images("test")
    x, y = data.grey.centre(u[rows]), y[rows]

    def noise(stream: str) -> KeyedNoise:
        return KeyedNoise(0, stream, rows, data.shape)

    found = {}
    if "classify" not in method.unsupported:
        found["classify"] = method.classify(x)
        if method.noisy_process is not None:
            t = method.noisy_process.times_at(torch.tensor(rows) / 10)
            x_t, _ = method.noisy_process.perturb(x, t, noise("noisy")())
            found["classify noisy"] = method.classify(x_t, t)
            if "masked" not in method.unsupported:
                found |= {f"masked {name}": logits for name, logits in method.classifier.masked(x_t, t).items()}
    if "log_prob" not in method.unsupported:
        found["log_prob"] = method.log_prob(x, noise("log_prob"))
    if "diagnostics" not in method.unsupported:
        checks = method.likelihood.diagnostics(x, noise("diagnostics"), torch.tensor([0.25, 0.75]))
        found["diagnostics level_ce"] = checks["level_ce"]
    if "denoise" not in method.unsupported:
        times = method.denoiser.process.times_at(torch.tensor(rows) / 10)
        found["denoise"] = method.denoiser.eps(x, times)
    if "sample" not in method.unsupported:
        found["sample"] = method.sample(noise("sample"))
        if method.conditional:
            found["sample of a class"] = method.sample(noise("sample"), y)
    return found


def random_weights(method: Method) -> None:
    """Leave random weights where a method looks for the trained ones of its frozen denoisers."""
    generator = torch.Generator().manual_seed(0)
    for part in (part for part in method.modules() if isinstance(part, Pretrained)):
        state = part.held.state_dict()
        for name, value in state.items():
            state[name] = value + 0.05 * torch.randn(value.shape, generator=generator).to(value.dtype)
        torch.save({"state_dict": {f"denoiser.{name}": value for name, value in state.items()}}, part.checkpoint)


@pytest.fixture(scope="module", params=cases(decaying=False))
def case(request, tmp_path_factory) -> Case:
    return Case(*request.param, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module", params=cases(decaying=True))
def decaying_case(request, tmp_path_factory) -> Case:
    return Case(*request.param, tmp_path_factory.mktemp("run"))


def assert_answered(case: Case) -> None:
    """Finite answers of the right shape to all that is supported."""
    classes, shape = (case.data.classes,), case.data.shape
    shapes = {
        "classify": classes,
        "masked": classes,
        "log_prob": (),
        "diagnostics": (),
        "sample": shape,
        "denoise": shape,
    }
    for question, answer in case.answers.items():
        assert answer.shape == (len(ROWS), *shapes[question.split()[0]]), question
        assert answer.isfinite().all(), question
    assert {question.split()[0] for question in case.answers} == set(shapes) - set(case.method.unsupported)


def assert_loss_is_its_terms(case: Case) -> None:
    for step in case.steps:
        terms = [term for name, term in step.items() if name not in ("loss", *SHOWN)]
        assert all(term.isfinite() for term in terms)
        if case.method.automatic_optimization:
            torch.testing.assert_close(step["loss"], torch.stack(terms).sum())


def test_the_loss_is_the_sum_of_its_finite_terms(case):
    assert case.steps
    assert_loss_is_its_terms(case)


def test_validation_reads_finite_terms_from_labeled_images_alone(case):
    found = {name.removeprefix("val/"): value for name, value in case.validation.items()}
    assert all(math.isfinite(value) for value in found.values())
    terms = sum(value for name, value in found.items() if name not in ("loss", "accuracy"))
    assert found["loss"] == pytest.approx(terms, rel=1e-4)
    assert ("accuracy" in found) == ("classify" not in case.method.unsupported)


def test_a_loss_uses_none_of_the_parts_that_trainings_are_not_known_by(case, monkeypatch):
    x, y = next(iter(case.data.val_dataloader()))["labeled"]

    def losses():
        torch.manual_seed(0)
        return {name: term.detach() for name, term in case.method.losses({"labeled": (x[:8], y[:8])}).items()}

    before = losses()
    for part in inspect.signature(type(case.method)).parameters.keys() & set(NOT_TRAINING):
        monkeypatch.setattr(case.method, part, None, raising=False)
    torch.testing.assert_close(losses(), before, rtol=0, atol=0)


def test_what_is_supported_is_answered_in_the_right_shape(case):
    assert_answered(case)


def test_what_is_not_supported_is_refused_with_its_reason(case):
    method, x = case.method, torch.zeros(1, *case.data.shape)
    noise = KeyedNoise(0, "sample", [0], case.data.shape)
    ask = {
        "sample": lambda: method.sample(noise),
        "classify": lambda: method.classify(x),
        "log_prob": lambda: method.log_prob(x, noise),
    }
    assert all(method.unsupported.values())
    for question, reason in ((q, r) for q, r in method.unsupported.items() if q in ask):
        with pytest.raises(Unsupported, match=re.escape(reason)):
            ask[question]()


def test_an_answer_does_not_depend_on_the_batch_it_is_in(case):
    for question, answer in answers(case.method, case.data, ROWS[2:]).items():
        torch.testing.assert_close(case.answers[question][2:], answer, atol=2e-3, rtol=1e-3, msg=question)


def test_a_method_built_anew_answers_the_same_with_the_saved_weights(case, tmp_path):
    torch.save(case.method.state_dict(), tmp_path / "weights")
    other = build([*case.arguments, "--seed_everything=1"]).model
    other.load_state_dict(torch.load(tmp_path / "weights", weights_only=True))
    for question, answer in answers(ready(other), case.data, ROWS).items():
        assert torch.equal(case.answers[question], answer), question


def test_a_method_whose_noise_explodes_works_where_the_signal_decays_too(decaying_case):
    assert isinstance(decaying_case.method.denoiser.process, ContinuousVP)
    assert_loss_is_its_terms(decaying_case)
    assert_answered(decaying_case)
