"""Questions to methods: for each the module that asks, the function that makes records, and what its answer depends on.

A question is a function of its own name in ``benchmark.answers``, records of it, definitions of their metrics, and a
line here.
"""

from dataclasses import dataclass

from benchmark.suite.settings import SAMPLING


@dataclass(frozen=True)
class Question:
    """A question to a method.

    Attributes:
        answers: Module with a function of the question's name, ``(method, data, protocol, folder, report) -> result``.
        records: Dotted name of the function that makes records of the answer, ``(job, protocol) -> records``.
        protocol: Settings of the protocol that the answer depends on, beside seed, test images and batch.
        settings: Arguments of the method that it depends on, beside those that weights depend on.
        scaled: Whether it is asked at each guidance scale of the cell; the function then takes ``scale``, and the
            method samples at it.
        judged: Whether the suite's reference judges the answer; the function then takes ``reference``.
        always: Whether all methods are asked, and not only cells that name it under ``ask``.
    """

    answers: str
    records: str
    protocol: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    scaled: bool = False
    judged: bool = False
    always: bool = True


# Some classifiers are computed from the density or the denoiser, so that its settings matter.
QUESTIONS = {
    "classify": Question(
        "benchmark.answers.classification", "benchmark.records.classification.classification_records",
        protocol=("noisy_draws", "levels"), settings=("likelihood",),
    ),
    "likelihood": Question(
        "benchmark.answers.likelihood", "benchmark.records.density.likelihood_records", settings=("likelihood",)
    ),
    "denoise": Question(
        "benchmark.answers.denoising", "benchmark.records.density.denoising_records", protocol=("denoise_times",)
    ),
    "calibrate": Question(
        "benchmark.answers.calibration", "benchmark.records.density.calibration_records", protocol=("denoise_times",)
    ),
    "diagnose": Question(
        "benchmark.answers.noise_levels", "benchmark.records.density.diagnostic_records",
        protocol=("denoise_times",), settings=("likelihood",),
    ),
    "gradients": Question(
        "benchmark.answers.gradients", "benchmark.records.density.gradient_records", protocol=("denoise_times",)
    ),
    "alignment": Question(
        "benchmark.answers.alignment", "benchmark.records.guided.alignment_records",
        protocol=("denoise_times",), always=False,
    ),
    "curves": Question("benchmark.answers.curves", "benchmark.records.levels.curves_records", always=False),
    "probe": Question("benchmark.answers.probe", "benchmark.records.levels.probe_records", always=False),
    "steps": Question(
        "benchmark.answers.steps", "benchmark.records.guided.steps_records",
        protocol=("samples",), settings=SAMPLING, scaled=True, always=False,
    ),
    "counterfactual": Question(
        "benchmark.answers.counterfactual", "benchmark.records.guided.counterfactual_records",
        settings=SAMPLING, scaled=True, judged=True, always=False,
    ),
}  # fmt: skip
"""All questions by name, in the order in which they are asked."""
