import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from oracles import ExactClassifier, ExactDenoiser, GaussianMixture

from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import AssistedClassifier, ClassifierGuidance
from methods.diffusion.noise import KeyedNoise
from methods.diffusion.process import ContinuousVP, DiscreteVP, VarianceExploding
from methods.diffusion.samplers import DDIM, DDPM, DPMSolver2, DPMSolver2Multistep, Heun, PredictorCorrector

PROCESSES = {"ve": VarianceExploding(), "vp": ContinuousVP(), "discrete": DiscreteVP(1000, pure_noise=True)}
SAMPLERS = {
    "ddpm small": lambda n: DDPM(n),
    "ddpm large": lambda n: DDPM(n, variance="large"),
    "ddim": lambda n: DDIM(n),
    "ddim 0.5": lambda n: DDIM(n, eta=0.5),
    "heun": lambda n: Heun(n),
    "dpm solver": lambda n: DPMSolver2(n),
    "dpm solver multistep": lambda n: DPMSolver2Multistep(n),
    "predictor corrector": lambda n: PredictorCorrector(n),
}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
every_sampler = pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)


class GaussianDenoiser(Denoiser):
    """Exact on independent pixels ``N(mean, std^2)``; the oracle costs more in long chains."""

    def __init__(self, process, std: float = 0.5, mean: float = 0.0) -> None:
        super().__init__()
        self.process, self.std, self.mean = process, std, mean

    def forward(self, x_t, t, y=None):
        alpha, sigma = self.process.scales(t, like=x_t)
        shrink = alpha * self.std**2 / ((alpha * self.std) ** 2 + sigma**2)
        return self.mean + shrink * (x_t - alpha * self.mean)


class Impulses:
    """Noise whose draw ``k`` is one in pixel ``k`` and zero elsewhere.

    A linear sampler with it answers its own coefficients: the squared length of the answer is the exact variance of a
    pixel that it samples.
    """

    def __init__(self, n: int) -> None:
        self._rows = iter(torch.eye(n, dtype=torch.float64).view(n, 1, 1, 1, n))

    def __call__(self) -> torch.Tensor:
        return next(self._rows)


def variance_of(sampler, process, draws: int) -> float:
    return sampler(GaussianDenoiser(process), Impulses(draws)).square().sum().item()


@pytest.mark.parametrize(("variance", "published"), [("large", 0.250752), ("small", 0.246125)])
def test_ancestral_chain_of_a_thousand_steps_has_the_published_variance(variance, published):
    found = variance_of(DDPM(1000, variance), DiscreteVP(1000), draws=1000)
    assert found == pytest.approx(published, abs=1e-6)


@every_process
def test_ancestral_variances_bracket_the_truth_and_approach_it(process):
    small, large, finer = (
        variance_of(DDPM(n, variance), process, n) for n, variance in [(100, "small"), (100, "large"), (400, "small")]
    )
    assert small < 0.25 < large
    assert abs(finer - 0.25) < 0.4 * abs(small - 0.25)


@every_process
@pytest.mark.parametrize("steps", [1, 7, 40])
def test_stochastic_ddim_is_ancestral_sampling(process, steps):
    mixture = GaussianMixture.example()
    draws = torch.randn(steps, 6, *mixture.shape, dtype=torch.float64)
    images = [s(ExactDenoiser(mixture, process), iter(draws).__next__) for s in (DDIM(steps, eta=1.0), DDPM(steps))]
    torch.testing.assert_close(*images, atol=1e-9, rtol=1e-9)


class DiffusersModel:
    """Our denoiser as the noise prediction that diffusers' schedulers ask for; their step 0 is our level 1."""

    def __init__(self, process: DiscreteVP) -> None:
        self.process, self.denoiser = process, ExactDenoiser(GaussianMixture.example(), process)

    def sample(self, scheduler, steps: int, x: torch.Tensor, options=dict) -> torch.Tensor:
        scheduler.alphas_cumprod = self.process.alpha_bar[1:]  # theirs are single-precision products
        scheduler.set_timesteps(steps)
        for step in scheduler.timesteps:
            t = ((step + 1) / self.process.last).double().expand(len(x))
            x = scheduler.step(self.denoiser.eps(x, t), step, x, **options()).prev_sample
        return x


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [50, 10])
def test_ancestral_chain_is_that_of_diffusers(variance, steps):
    model = DiffusersModel(DiscreteVP(50))
    draws = torch.randn(steps, 4, 1, 2, 2, dtype=torch.float64)
    ours = DDPM(steps, variance)(model.denoiser, iter(draws).__next__)
    reference = DDPMScheduler(50, variance_type=f"fixed_{variance}", clip_sample=False, timestep_spacing="leading")

    class Replay:  # stands for a generator: the scheduler asks for its noise by its shape alone
        rest = iter(draws[1:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: next(Replay.rest))
        theirs = model.sample(reference, steps, draws[0])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("steps", [100, 25])
def test_implicit_chain_is_that_of_diffusers(steps, eta):
    model = DiffusersModel(DiscreteVP(100))
    draws = torch.randn(steps + 1, 4, 1, 2, 2, dtype=torch.float64)
    rest = iter(draws[1:])
    reference = DDIMScheduler(100, clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading")
    theirs = model.sample(reference, steps, draws[0], lambda: {"eta": eta, "variance_noise": next(rest)})
    torch.testing.assert_close(DDIM(steps, eta)(model.denoiser, iter(draws).__next__), theirs)


class LinearInLambda(Denoiser):
    """Predicts a noise that does not depend on the image and is ``eps + slope * lambda`` along the way."""

    def __init__(self, process, eps: float, slope: float) -> None:
        super().__init__()
        self.process, self.constant, self.slope = process, eps, slope

    def forward(self, x_t, t, y=None):
        alpha, sigma = self.process.scales(t, like=x_t)
        return (x_t - sigma * (self.constant + self.slope * torch.log(alpha / sigma))) / alpha


@pytest.mark.parametrize("name", ["ve", "vp"])
@pytest.mark.parametrize(
    ("sampler", "slope"),
    [(DDIM(4), 0.0), (DPMSolver2(4), 0.0), (DPMSolver2Multistep(4), 0.0), (DPMSolver2Multistep(4), 0.7)],
)
def test_exponential_integrators_are_exact_for_the_noise_that_they_assume(name, sampler, slope):
    """``x_s = alpha_s (x_t / alpha_t + [exp(-lambda) (eps + slope (lambda + 1))] from t to s)``, integrated."""
    process = PROCESSES[name]
    denoiser = LinearInLambda(process, 1.3, slope)
    # The multistep solver knows no slope in its first step, which is therefore a short one.
    levels = process.levels(torch.tensor([0.8, 0.8 - 1e-5, 0.5, 0.3], dtype=torch.float64))
    x = torch.randn(2, 1, 2, 2, dtype=torch.float64)
    found = sampler.solve(denoiser, x, levels, None, lambda: x)

    def antiderivative(level):
        return level.noise_ratio * (1.3 + slope * (1 - math.log(level.noise_ratio)))

    t, s = levels[0], levels[-1]
    exact = s.alpha * (x / t.alpha + antiderivative(s) - antiderivative(t))
    torch.testing.assert_close(found, exact, atol=1e-7, rtol=1e-7)


def flow_error(sampler, process) -> float:
    """Distance of a solver's images of a Gaussian from the probability flow's closed form."""
    mean, std = 0.3, 0.5
    denoiser = GaussianDenoiser(process, std, mean)
    z = torch.linspace(-2, 2, 8, dtype=torch.float64).view(1, 1, 1, 8)
    levels = process.levels(sampler.times(process))
    start, end = levels[0], levels[-1]
    spread = [math.hypot(level.alpha * std, level.sigma) for level in (start, end)]
    exact = end.alpha * mean + spread[1] / spread[0] * (process.prior_scale * z - start.alpha * mean)
    return (sampler(denoiser, lambda: z) - denoiser(exact, end.times(exact))).abs().max().item()


@pytest.mark.parametrize("name", ["ve", "vp"])
@pytest.mark.parametrize(
    ("make", "order", "steps"), [(DDIM, 1, 100), (Heun, 2, 50), (DPMSolver2, 2, 200), (DPMSolver2Multistep, 2, 400)]
)
def test_solvers_approach_the_probability_flow_at_their_order(name, make, order, steps):
    coarse, fine = (flow_error(make(n + 1), PROCESSES[name]) for n in (steps, 2 * steps))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.12)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "uniform"])
@pytest.mark.parametrize("make", [DPMSolver2, DPMSolver2Multistep])
def test_second_order_solvers_beat_ddim_on_the_published_levels(make, schedule):
    process = DiscreteVP(1000, schedule, pure_noise=True)
    assert flow_error(make(25), process) < 0.4 * flow_error(DDIM(25), process)


def test_solver_with_midpoints_keeps_its_order_where_levels_have_none_between_them():
    process = DiscreteVP(25)
    assert flow_error(DPMSolver2(25), process) < 0.4 * flow_error(DDIM(25), process)


def test_heun_visits_the_published_grid():
    process = VarianceExploding(0.002, 80)
    sampler = Heun(18)
    sigma = torch.tensor([level.sigma for level in process.levels(sampler.times(process))])
    i = torch.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(sigma, expected, atol=0, rtol=1e-5)


@pytest.mark.parametrize("process", [PROCESSES["ve"], PROCESSES["discrete"]], ids=["ve", "discrete"])
def test_predictor_corrector_keeps_the_variance_of_a_gaussian_up_to_its_known_bias(process):
    """Langevin steps of ``r`` spread by ``1 / (1 - r^2)``; steps that an image's own score sets, by ``1 + 2 / d``."""
    images = PredictorCorrector(400)(GaussianDenoiser(process), lambda: torch.randn(800, 3, 4, 4))
    assert images.var().item() == pytest.approx(0.25 / (1 - 0.16**2) * (1 + 2 / 48), rel=0.025)


def test_predictor_corrector_takes_the_published_step():
    """Song et al. 2021, Alg. 3 and 5, with ``beta`` of the step from level 7 to level 6 and norms of one image."""
    process, r = DiscreteVP(10), 0.16
    denoiser = ExactDenoiser(GaussianMixture.example(), process)
    times = torch.tensor([0.7, 0.6], dtype=torch.float64)
    x, z, z2 = torch.randn(3, 1, 1, 2, 2, dtype=torch.float64)
    beta = 1 - process.alpha_bar[7] / process.alpha_bar[6]
    g = denoiser.score(x, times[:1])
    eta = 2 * (1 - beta) * (r * math.sqrt(4) / g.norm()) ** 2
    corrected = x + eta * g + (2 * eta).sqrt() * z
    score = denoiser.score(corrected, times[:1])
    expected = (2 - (1 - beta).sqrt()) * corrected + beta * score + beta.sqrt() * z2
    found = PredictorCorrector(snr=r).step(denoiser, x, *process.levels(times), None, iter([z, z2]).__next__)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("process", [PROCESSES["ve"], PROCESSES["vp"]], ids=["ve", "vp"])
def test_predictor_alone_keeps_the_variance_of_a_gaussian(process):
    images = PredictorCorrector(400, snr=1e-6)(GaussianDenoiser(process), lambda: torch.randn(1, 1, 1, 20_000))
    assert images.var().item() == pytest.approx(0.25, rel=0.04)


EVALUATIONS = {
    "ddpm small": 10,
    "ddpm large": 10,
    "ddim": 10,
    "ddim 0.5": 10,
    "heun": 19,
    "dpm solver": 19,
    "dpm solver multistep": 10,
    "predictor corrector": 20,
}


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(
    "process", [*PROCESSES.values(), DiscreteVP(10), DiscreteVP(13)], ids=[*PROCESSES, "every level", "most levels"]
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sample_costs_the_evaluations_that_are_stated(process, name, guided):
    mixture = GaussianMixture.example()
    denoiser, sampler = ExactDenoiser(mixture, process), SAMPLERS[name](10)
    assert sampler.nfe == EVALUATIONS[name]
    if guided:

        class Nearest(torch.nn.Module):
            def forward(self, pair, log_sigma):
                return -torch.cdist(pair[1].flatten(1), mixture.means.float()[[0, 2, 3]])

        classifier = AssistedClassifier(denoiser, Nearest())
        sampler(ClassifierGuidance(denoiser, classifier), lambda: torch.randn(2, 1, 2, 2), torch.tensor([0, 1]))
    else:
        sampler(denoiser, lambda: torch.randn(2, 1, 2, 2))
    assert denoiser.calls == sampler.nfe


@every_process
@every_sampler
def test_an_image_does_not_depend_on_its_batch(process, make):
    mixture = GaussianMixture.example()
    guided = ClassifierGuidance(ExactDenoiser(mixture, process), ExactClassifier(mixture, process), scale=2.0)
    indices, labels = [4, 0, 7], torch.tensor([2, 0, 1])
    together = make(8)(guided, KeyedNoise(0, "sample", indices, mixture.shape), labels)
    alone = [
        make(8)(guided, KeyedNoise(0, "sample", [i], mixture.shape), y[None])
        for i, y in zip(indices, labels, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


CHAINS = {
    "heun, ve": (PROCESSES["ve"], Heun(30)),
    "heun, vp": (PROCESSES["vp"], Heun(30)),
    "heun, discrete": (PROCESSES["discrete"], Heun(30)),
    "dpm solver, vp": (PROCESSES["vp"], DPMSolver2(40)),
    "dpm solver multistep, discrete": (PROCESSES["discrete"], DPMSolver2Multistep(80)),
    "ddim, ve": (PROCESSES["ve"], DDIM(120)),
    "ancestral, vp": (PROCESSES["vp"], DDPM(120)),
    "ancestral, discrete": (PROCESSES["discrete"], DDPM(120)),
}


@pytest.mark.parametrize(("process", "sampler"), CHAINS.values(), ids=CHAINS)
def test_samples_have_the_classes_and_the_moments_of_the_mixture(process, sampler):
    mixture, n = GaussianMixture.example(spread=0.8), 1000
    images = sampler(ExactDenoiser(mixture, process), lambda: torch.randn(n, 1, 2, 2))
    found = mixture.class_log_joint(images).softmax(1).mean(0)
    torch.testing.assert_close(found, mixture.class_prior, atol=4 * 0.5 / math.sqrt(n), rtol=0)
    assert_same_moments(images, mixture.sample(20_000)[0])


@pytest.mark.parametrize("name", ["heun, ve", "heun, vp", "dpm solver multistep, discrete", "ancestral, discrete"])
def test_guided_samples_are_those_of_their_class(name):
    process, sampler = CHAINS[name]
    mixture, n = GaussianMixture.example(spread=0.8), 400
    guided = ClassifierGuidance(ExactDenoiser(mixture, process), ExactClassifier(mixture, process))
    images = sampler(guided, lambda: torch.randn(n, 1, 2, 2), torch.full((n,), 2))
    x, y = mixture.sample(40_000)
    assert_same_moments(images, x[y == 2])


def assert_same_moments(images: torch.Tensor, data: torch.Tensor) -> None:
    """Mean and covariance of samples equal those of data up to four standard errors and one percent of bias."""
    images, data = images.flatten(1).double(), data.flatten(1).double()
    scale = data.std(0)
    error = 4 / math.sqrt(len(images)) + 0.01
    assert ((images.mean(0) - data.mean(0)).abs() / scale).max() < error
    assert ((images.T.cov() - data.T.cov()).abs() / (scale[:, None] * scale)).max() < 1.5 * error
