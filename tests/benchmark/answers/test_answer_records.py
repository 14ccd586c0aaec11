"""Records of what a method answered: real methods asked in batches of any size, and arrays with known answers."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from benchmark.answers.gradients import gradients
from benchmark.records.cell import answer_records
from benchmark.records.classification import classification_records
from benchmark.records.density import _level_balance, gradient_records
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.questions import QUESTIONS
from benchmark.suite.stages import Stage
from benchmark.suite.suite import Cell
from benchmark.system.arrays import load_arrays, save_arrays
from benchmark.training.build import build
from methods.base import KeyedNoise

CONFIGS = Path(__file__).parents[3] / "configs" / "digits"
PROTOCOL = Protocol(test_images=20, noisy_draws=2, levels=3, denoise_times=(0.25, 0.75), middle=(0.2, 2.0))
SMALL_LEVELS = (
    "--model.init_args.process.init_args.steps=8", "--model.init_args.network.init_args.levels=10",
    "--model.init_args.sampler.init_args.steps=8",
)  # fmt: skip


def job_in(folder):
    config = {"model": {"class_path": "methods.noisy_classifier.NoisyClassifierGuidance"}}
    return Job(Cell("cell", config="a.yaml"), 0, "evaluate", Path(folder), (), Path(folder), config=config)


def built(name, *words):
    """A method of the digits with random weights everywhere, and its data."""
    cli = build([f"--config={CONFIGS / name}.yaml", *words, "--trainer.logger=false", "--trainer.accelerator=cpu"])
    generator = torch.Generator().manual_seed(0)
    for weight in cli.model.parameters():
        weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    return cli.model.eval().requires_grad_(False), cli.datamodule


def records_of(method, data, folder, batch):
    """All records of a method's answers, by metric and noise level."""
    protocol = Protocol(**{**vars(PROTOCOL), "batch": batch})
    folder.mkdir()
    for name, question in QUESTIONS.items():
        if not question.always:
            continue
        work = getattr(import_module(question.answers), name)
        Stage(name, "key").complete(folder, lambda work=work: work(method, data, protocol, folder, lambda *_: None))
    return {record.metric: record for record in answer_records(job_in(folder), protocol)}


@pytest.fixture
def score_model(tmp_path):
    model, _ = built("score_model")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "final.ckpt")
    return tmp_path / "final.ckpt"


@pytest.mark.slow
def test_answers_in_batches_of_any_size_have_the_same_records(tmp_path):
    method, data = built("cdm_conditional", *SMALL_LEVELS)
    found = [records_of(method, data, tmp_path / f"{batch}", batch) for batch in (64, 7, 1)]
    measured = {metric for metric, record in found[0].items() if record.status == "ok"}
    expected = {
        *("accuracy/clean", "accuracy/noisy", "accuracy/levels", "accuracy/middle", "f1", "ece"),
        *("label_nll", "brier", "nll", "nfe/nll"),
        *(
            "nll/ode",
            "nll/lattice",
            "nll/t=0.25",
            "nll/t=0.75",
            "level_ce",
            "accuracy/level",
            "mse/level",
            "level_balance",
        ),
        *("mse/denoise/t=0.25", "mse/denoise/t=0.75", "mse/calibration/t=0.25", "mse/calibration/t=0.75"),
    }
    assert expected == {metric for metric in measured if not metric.startswith("accuracy/t=")}
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for metric, record in found[0].items():
            again = other[metric]
            assert (again.identity, again.n, again.status) == (record.identity, record.n, record.status)
            if record.status == "ok":
                assert again.value == pytest.approx(record.value, rel=1e-4, abs=1e-5), metric
                assert again.stderr == pytest.approx(record.stderr, rel=1e-3, abs=1e-5), metric
    with np.load(tmp_path / "7" / "diagnostics.npz") as file:
        np.testing.assert_allclose(file["confusion"].sum(1), 1, atol=1e-5)
        assert file["confusion"].shape == (10, 10)
    about = found[0]["nll"].protocol
    assert (about["kind"], about["data"], about["nfe"]) == ("unnormalised", "dequantised", 1)
    assert found[0]["nll/lattice"].protocol["data"] == "grey levels"


def test_a_density_that_is_a_denoisers_own_is_as_calibrated_as_it_denoises(tmp_path):
    method, data = built("class_gaussians")
    method.denoiser.means.normal_(generator=torch.Generator().manual_seed(0))
    found = records_of(method, data, tmp_path / "run", 7)
    for t in ("0.25", "0.75"):
        predicted, denoised = found[f"mse/calibration/t={t}"], found[f"mse/denoise/t={t}"]
        assert predicted.value == pytest.approx(denoised.value, rel=1e-4)
        assert (predicted.protocol["sigma"], predicted.n) == (denoised.protocol["sigma"], 20)


def test_a_posterior_that_ignores_images_has_a_calibration_error_of_one(tmp_path):
    method, data = built("class_gaussians")
    method.classifier = Indifferent(method.denoiser.process)
    found = records_of(method, data, tmp_path / "run", 20)
    noise = KeyedNoise(0, "denoise", range(20), data.shape)()
    assert found["mse/calibration/t=0.75"].value == pytest.approx(float(noise.square().mean()), rel=1e-5)


class Indifferent(torch.nn.Module):
    """The same logits for every image."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def forward(self, x_t, t):
        return 0 * x_t.flatten(1)[:, :10]


def test_masked_inputs_are_read_on_the_noisy_images_of_all_draws(tmp_path, score_model):
    method, data = built("denoising_assisted", f"--model.init_args.denoiser.init_args.checkpoint={score_model}")
    found = records_of(method, data, tmp_path / "run", 20)
    arrays = load_arrays(tmp_path / "run" / "logits.npz")
    u, _ = data.some_images("test", 20, [0, 4])
    quantiles = torch.from_numpy(np.random.default_rng([0, 1]).random((2, 20), dtype=np.float32))
    process = method.noisy_process
    noise = KeyedNoise(0, "noisy", range(20), data.shape)
    for draw, quantile in enumerate(quantiles):
        t = process.times_at(quantile)
        x_t, _ = process.perturb(data.grey.centre(u), t, noise())
        asked = {"noisy": method.classify(x_t, t)}
        asked |= {f"masked_{name}": logits for name, logits in method.classifier.masked(x_t, t).items()}
        for name, logits in asked.items():
            torch.testing.assert_close(torch.from_numpy(arrays[name][draw]), logits, atol=1e-4, rtol=1e-4)
    for name in ("noisy", "masked_x", "masked_denoised"):
        record = found[f"accuracy/{name}"]
        assert record.value == pytest.approx((arrays[name].argmax(2) == arrays["y"]).mean())
        assert (record.n, record.protocol["draws"]) == (2 * 20, 2)


# From arrays with known answers.


def classified(folder, logits, y, noisy=True, **told):
    arrays = {"y": y, "clean": logits}
    if noisy:
        arrays |= {"noisy": logits[None], "levels": np.stack([logits, -logits]), "level_times": np.array([0.25, 0.75]),
                   "level_sigmas": np.array([0.5, 1.0])}  # fmt: skip
    save_arrays(folder / "logits.npz", **arrays)
    about = {"outputs": ["logits.npz"], "masked": "reads one image, not two", **told}
    Stage("classify", "key").complete(folder, lambda: about)
    return {record.metric: record for record in classification_records(job_in(folder), Protocol(levels=2))}


def test_a_classifier_of_many_evaluations_says_how_many(tmp_path):
    logits, y = np.eye(3, dtype=np.float32), np.arange(3)
    for folder in (tmp_path / "one", tmp_path / "many"):
        folder.mkdir()
    assert classified(tmp_path / "many", logits, y, nfe=70)["nfe/classify"].value == 70
    assert "nfe/classify" not in classified(tmp_path / "one", logits, y, nfe=1)


def test_a_task_of_more_than_ten_classes_has_the_label_among_the_first_five(tmp_path):
    y = np.arange(24) % 12
    logits = -np.abs(np.arange(12) - y[:, None]).astype(np.float32)  # the label first, then its neighbours
    logits[:6] *= -1  # the label last
    found = classified(tmp_path, logits, y)
    assert found["top5/clean"].value == found["accuracy/clean"].value == found["top5/noisy"].value == 18 / 24
    assert found["top5/levels"].value == found["top5/middle"].value == 0.5
    assert found["top5/t=0.750"].value == 6 / 24
    shifted = classified(tmp_path, np.roll(logits, 1, axis=1), y)  # the label is a neighbour of the first
    assert shifted["accuracy/clean"].value < 0.1
    assert shifted["top5/clean"].value >= 17 / 24


def test_a_task_of_ten_classes_has_no_top_five_and_says_why(tmp_path):
    found = classified(tmp_path, np.eye(10, dtype=np.float32), np.arange(10), noisy=False)
    assert not [metric for metric in found if metric.startswith("top5")]
    assert found["accuracy/noisy"].reason == "reads clean images only"
    assert found["accuracy/masked_x"].reason == "reads one image, not two"


@pytest.mark.parametrize(("classes", "average"), [(2, "positive class"), (4, "macro")])
def test_f1_says_whose_it_is(tmp_path, classes, average):
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=200)
    logits = (np.eye(classes)[y] + rng.normal(size=(200, classes))).astype(np.float32)
    record = classified(tmp_path, logits, y)["f1"]
    expected = f1_score(y, logits.argmax(1), average="binary" if classes == 2 else "macro")
    assert record.value == pytest.approx(expected)
    assert record.protocol["average"] == average


def test_proper_scores_are_means_over_clean_images_with_their_errors(tmp_path):
    logits, y = np.log([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]]), np.array([0, 1])
    found = classified(tmp_path, logits, y, noisy=False)
    nll, brier = [np.log(2), np.log(10)], [0.5**2 + 2 * 0.25**2, 0.8**2 + 0.9**2 + 0.1**2]
    for metric, values in (("label_nll", nll), ("brier", brier)):
        record = found[metric]
        assert (record.value, record.stderr) == pytest.approx((np.mean(values), np.std(values, ddof=1) / np.sqrt(2)))
        assert (record.n, record.higher_is_better) == (2, False)


def measured_gradients(folder, estimate, truth, score):
    """Values of the gradients' metrics by name and scaling, from the arrays of one noise level."""
    arrays = {"estimate": estimate, "truth": truth, "score": score}
    save_arrays(folder / "gradients.npz", **{f"grid_{k}": v[None] for k, v in arrays.items()}, sigmas=np.array([7.5]))
    Stage("gradients", "key").complete(folder, lambda: {"outputs": ["gradients.npz"], "points": ["grid"]})
    records = list(gradient_records(job_in(folder), Protocol()))
    assert {record.protocol["sigma"] for record in records} == {7.5}
    return {(record.metric, record.protocol.get("scaling")): record.value for record in records}


def test_a_gradient_that_is_only_too_short_is_perfect_up_to_its_best_scale(tmp_path):
    rng = np.random.default_rng(0)
    truth, score = rng.normal(size=(2, 50, 2))
    found = measured_gradients(tmp_path, 0.5 * truth, truth, score)
    np.testing.assert_allclose(found["gradient/mse", "none"], np.square(0.5 * truth).sum(1).mean())
    np.testing.assert_allclose(found["gradient/mse", "best"], 0, atol=1e-12)
    np.testing.assert_allclose(found["gradient/cosine", None], 1)
    np.testing.assert_allclose(found["score/cosine", "best"], 1)
    assert found["score/cosine", "none"] < 1


def test_the_best_scale_is_the_least_squares_one_and_a_zero_gradient_points_nowhere(tmp_path):
    truth, score = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    estimate = np.array([[1.0, 1.0], [0.0, 0.0]])
    found = measured_gradients(tmp_path, estimate, truth, score)
    np.testing.assert_allclose(found["gradient/mse", "best"], (0.25 + 0.25 + 4) / 2)  # scale 1/2
    np.testing.assert_allclose(found["gradient/cosine", None], 2**-0.5 / 2)
    nothing = measured_gradients(tmp_path, 0 * estimate, truth, score)
    assert nothing["gradient/mse", "best"] == nothing["gradient/mse", "none"] == 2.5


def test_the_angle_to_a_gradient_is_taken_where_that_has_a_direction(tmp_path):
    truth, score = np.array([[1.0, 0.0], [0.0, 0.5], [0.0, 0.0], [1e-9, 0.0]]), np.ones((4, 2))
    found = measured_gradients(tmp_path, np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]]), truth, score)
    assert found["gradient/cosine", None] == 1.0
    nowhere = measured_gradients(tmp_path, np.ones((4, 2)), 0 * truth, score)
    assert nowhere["gradient/cosine", None] is None
    assert nowhere["gradient/mse", "none"] == 2.0


@pytest.mark.parametrize(
    ("suite", "metrics"), [("digits", ()), ("toy2d", ("gradient/mse", "gradient/cosine", "score/cosine"))]
)
def test_a_method_without_gradients_says_why_where_the_data_was_made_for_them(tmp_path, suite, metrics):
    words = [f"--config={CONFIGS.parent / suite / 'supervised.yaml'}", "--trainer.logger=false"]
    cli = build(words)
    Stage("gradients", "key").complete(
        tmp_path, lambda: gradients(cli.model, cli.datamodule, PROTOCOL, tmp_path, lambda *_: None)
    )
    found = {record.metric: record.reason for record in gradient_records(job_in(tmp_path), PROTOCOL)}
    assert found == dict.fromkeys(metrics, "reads clean images only")


def test_log_means_of_the_density_ratios_add_up_and_are_not_lost_to_overflow():
    steps = np.log(np.array([[1.0, 2.0], [3.0, 2.0]])) + np.array([0.0, 2000.0])
    found = _level_balance(steps)
    np.testing.assert_allclose(found.value, np.log(2) + np.log(2) + 2000)
    np.testing.assert_allclose(found.stderr, np.sqrt(2 / 2 / 4))  # variance 2 of the first, none of the second
    assert found.n == 2
