import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import ExactDenoiser, GaussianMixture
from torchdiffeq import odeint

from methods.diffusion.denoiser import EDMDenoiser, EpsDenoiser, Pretrained
from methods.diffusion.likelihood import AdaptiveProbabilityFlow, ProbabilityFlow, VariationalBound, bin_log_prob
from methods.diffusion.noise import KeyedNoise
from methods.diffusion.process import ContinuousVP, DiscreteVP, VarianceExploding

PROCESSES = {"ve": VarianceExploding(), "vp": ContinuousVP(), "discrete": DiscreteVP(1000, pure_noise=True)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


FLOWS = {"fixed": ProbabilityFlow, "adaptive": AdaptiveProbabilityFlow}
either_flow = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)


@either_flow
@every_process
def test_flow_of_a_gaussian_has_its_bits_per_dimension(process, flow):
    mixture = GaussianMixture.gaussian((3, 4, 4), std=0.4, mean=0.2)
    x, _ = mixture.sample(16)
    found = flow(ExactDenoiser(mixture, process))(x)
    bits = (found - mixture.log_prob(x)).abs() / (48 * math.log(2))
    assert bits.max() < 0.01


@every_process
def test_adaptive_flow_has_the_density_of_its_first_level_to_its_tolerance(process):
    """One Gaussian has a divergence that every probe gives exactly: nothing but steps and rounding is left."""
    mixture = GaussianMixture.gaussian((3, 4, 4), std=0.4, mean=0.2)
    denoiser = ExactDenoiser(mixture, process)
    first, last = process.levels(torch.tensor([process.t_min, process.t_max], dtype=torch.float64))
    x = first.alpha * mixture.sample(16, torch.float64)[0] + first.sigma * torch.randn(16, 3, 4, 4, dtype=torch.float64)
    # What is known of the end is N(0, prior_scale^2), which the data has not quite become.
    spread = math.sqrt(last.alpha**2 * 0.4**2 + last.sigma**2)
    start_spread = math.sqrt(first.alpha**2 * 0.4**2 + first.sigma**2)
    arrived = last.alpha * 0.2 + spread / start_spread * (x - first.alpha * 0.2)
    normal = torch.distributions.Normal(0.0, process.prior_scale)
    expected = normal.log_prob(arrived).flatten(1).sum(1) + 48 * math.log(spread / start_spread)
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = AdaptiveProbabilityFlow(denoiser, rtol=tolerance, atol=tolerance)(x)
        errors.append(float((found - expected).abs().max()) / 48)
    assert errors[0] < 0.05
    assert errors[1] < 1e-3
    assert errors[2] < errors[1] / 10 < errors[0] / 50


@pytest.mark.parametrize("process", [PROCESSES["ve"], PROCESSES["vp"]], ids=["ve", "vp"])
def test_adaptive_flow_agrees_with_a_peer_at_the_same_tolerances(process):
    mixture = GaussianMixture.gaussian((1, 2, 2), std=0.3, mean=0.2)
    denoiser = ExactDenoiser(mixture, process)
    x = mixture.sample(1, torch.float64)[0]
    probe = torch.tensor([1.0, -1.0, -1.0, 1.0]).view(1, 1, 2, 2).double()
    found, evaluations = AdaptiveProbabilityFlow(denoiser).counted(x, lambda: probe)

    def rates(log_s, state):
        s = log_s.exp()
        t = process.time(-2 * log_s[None])
        with torch.enable_grad():
            u = state[0].detach().requires_grad_()
            eps = denoiser.eps(process.alpha(t) * u, t)
            (pulled,) = torch.autograd.grad((eps * probe).sum(), u)
        return s * eps.detach(), s * (pulled * probe).mean()

    first, last = process.levels(torch.tensor([process.t_min, process.t_max], dtype=torch.float64))
    ends = torch.tensor([first.noise_ratio, last.noise_ratio], dtype=torch.float64).log()
    denoiser.calls = 0
    state = x / first.alpha, torch.zeros((), dtype=torch.float64)
    u, gained = (part[-1] for part in odeint(rates, state, ends, rtol=1e-5, atol=1e-5, method="dopri5"))
    normal = torch.distributions.Normal(0.0, process.prior_scale)
    expected = normal.log_prob(last.alpha * u).sum() + 4 * (gained + math.log(last.alpha / first.alpha))
    assert float(found) == pytest.approx(float(expected), abs=4 * 1e-3)
    assert int(evaluations) == pytest.approx(denoiser.calls, rel=0.25)


def test_adaptive_flow_counts_each_image_and_is_keyed_to_it():
    mixture = GaussianMixture.example((1, 2, 2))
    x, _ = mixture.sample(5)
    likelihood = AdaptiveProbabilityFlow(ExactDenoiser(mixture, PROCESSES["ve"]), rtol=1e-4, atol=1e-4)
    together, evaluations = likelihood.counted(x, KeyedNoise(0, "flow", range(5), (1, 2, 2)))
    assert len(evaluations.unique()) > 1
    alone = [likelihood.counted(x[i : i + 1], KeyedNoise(0, "flow", [i], (1, 2, 2))) for i in range(5)]
    # Up to rounding: a step may be just within the tolerance in one batch and just beyond it in another.
    torch.testing.assert_close(together, torch.cat([nats for nats, _ in alone]), atol=4e-3, rtol=0)
    torch.testing.assert_close(evaluations, torch.cat([n for _, n in alone]), atol=12, rtol=0)
    assert likelihood.settings == {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.parametrize("make", [EpsDenoiser, EDMDenoiser])
def test_adaptive_flow_asks_a_network_for_noise_between_discrete_levels(make):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.told = []

        def forward(self, x, log_sigma, y=None):
            self.told.append(log_sigma)
            return 0.5 * x * log_sigma.sigmoid().view(-1, 1, 1, 1)

    network, process = Network(), DiscreteVP(10)
    found = AdaptiveProbabilityFlow(make(network, process))(torch.randn(4, 1, 2, 2))
    told, levels = torch.cat(network.told), process.log_sigma(torch.arange(1, 11) / 10)
    assert levels[0] - 1e-4 < told.min() < told.max() < levels[-1] + 1e-4
    assert len(told.unique()) > 40
    assert found.isfinite().all()
    with pytest.raises(ValueError, match="Pretrained knows no noise levels between those of its discrete process"):
        AdaptiveProbabilityFlow(Pretrained(make(network, process), "none.ckpt"))


@either_flow
@every_process
def test_flow_of_a_mixture_has_its_bits_per_dimension(process, flow):
    mixture = GaussianMixture.example((1, 2, 2))
    first = process.levels(torch.tensor([process.t_min]))[0]
    x_t = first.alpha * mixture.sample(8, torch.float64)[0] + first.sigma * torch.randn(8, 1, 2, 2)
    # Half of all signs average the estimate of the divergence out: it is even in its probe.
    probes = torch.tensor(list(itertools.product([1.0], *3 * [[-1.0, 1.0]])), dtype=torch.float64)
    likelihood = flow(ExactDenoiser(mixture, process))
    found = likelihood(x_t.repeat(8, 1, 1, 1), lambda: probes.repeat_interleave(8, 0).view(64, 1, 2, 2))
    error = found.view(8, 8).mean(0) - mixture.log_prob(x_t, first.alpha, first.sigma)
    assert error.abs().max() / (4 * math.log(2)) < 0.015


@pytest.mark.parametrize("process", [VarianceExploding(0.05, 5.0), ContinuousVP(0.1, 6.0)], ids=["ve", "vp"])
def test_flow_converges_at_second_order(process):
    mixture = GaussianMixture(torch.tensor([-0.5, 0.4]).view(2, 1, 1, 1), torch.tensor([0.01, 0.04]))
    x = torch.linspace(-0.7, 0.7, 8, dtype=torch.float64).view(8, 1, 1, 1)
    denoiser = ExactDenoiser(mixture, process)
    coarse, middle, fine = (ProbabilityFlow(denoiser, steps)(x, lambda: x) for steps in (100, 200, 400))
    assert math.log2((coarse - middle).norm() / (middle - fine).norm()) == pytest.approx(2, abs=0.35)


def test_flow_estimate_is_keyed_to_the_image_and_costs_what_it_states():
    mixture = GaussianMixture.example((1, 2, 2))
    x, _ = mixture.sample(3)
    denoiser = ExactDenoiser(mixture, PROCESSES["ve"])
    likelihood = ProbabilityFlow(denoiser, 10)
    together = likelihood(x, KeyedNoise(0, "flow", [4, 0, 7], (1, 2, 2)))
    assert denoiser.calls == likelihood.nfe == 11
    alone = [likelihood(x[i : i + 1], KeyedNoise(0, "flow", [k], (1, 2, 2))) for i, k in enumerate([4, 0, 7])]
    torch.testing.assert_close(together, torch.cat(alone))
    other = likelihood(x, KeyedNoise(1, "flow", [4, 0, 7], (1, 2, 2)))
    assert (together - other).abs().max() > 1e-3


@pytest.mark.parametrize("steps", [10, 200])
def test_a_discrete_process_costs_no_more_evaluations_than_it_has_levels(steps):
    mixture = GaussianMixture.example((1, 2, 2))
    denoiser = ExactDenoiser(mixture, DiscreteVP(50))
    likelihood = ProbabilityFlow(denoiser, steps)
    likelihood(mixture.sample(2)[0], KeyedNoise(0, "flow", [0, 1], (1, 2, 2)))
    assert denoiser.calls == likelihood.nfe <= min(steps + 1, 50)


class Watched(ExactDenoiser):
    """Keeps of each evaluation the mean square of its images over that of noised ones, and sigma / alpha."""

    def __init__(self, std, process):
        super().__init__(GaussianMixture.gaussian((1, 8, 8), std), process)
        self.variance, self.sizes, self.ratios = std**2, [], []

    def forward(self, x_t, t, y=None):
        alpha, sigma = (float(scale.max()) for scale in self.process.scales(t, like=x_t))
        self.sizes.append(float(x_t.detach().square().mean()) / (alpha**2 * self.variance + sigma**2))
        self.ratios.append(sigma / alpha)
        return super().forward(x_t, t, y)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "uniform"])
def test_the_flow_of_a_discrete_process_asks_for_images_as_noised_ones_are_up_to_the_prior(schedule):
    """The last of 100 levels of a cosine has 30 times the noise of the one before."""
    denoiser = Watched(0.8, DiscreteVP(100, schedule=schedule))
    x, _ = denoiser.mixture.sample(200, torch.float64)
    found = ProbabilityFlow(denoiser)(x)
    assert (found - denoiser.mixture.log_prob(x)).mean().abs() / (64 * math.log(2)) < 0.003
    assert max(abs(math.log(size)) for size in denoiser.sizes) < 0.03
    assert max(denoiser.ratios[:-1]) < 50


def expected_bound(process: DiscreteVP, std: float, variance: str) -> float:
    """Nats a pixel that the bound loses on ``N(0, std^2)`` with the exact denoiser, expected over image and noise."""
    alpha_bar = process.alpha_bar[1 : process.steps + 1]
    error = std**2 * (1 - alpha_bar) / (alpha_bar * std**2 + 1 - alpha_bar)  # E (x - E[x | x_t])^2
    before, beta = alpha_bar[:-1], 1 - alpha_bar[1:] / alpha_bar[:-1]
    posterior = beta * (1 - before) / (1 - alpha_bar[1:])
    model = posterior if variance == "small" else beta
    means = (beta * before.sqrt() / (1 - alpha_bar[1:])) ** 2 * error[1:] / (2 * model)
    kl = 0.5 * (posterior / model - 1 - torch.log(posterior / model)) + means
    width = posterior[0]  # the released code's, of the second level
    decoder = 0.5 * torch.log(2 * math.pi * width) + error[0] / (2 * width)
    last = alpha_bar[-1]
    prior = 0.5 * (1 - last + last * std**2 - 1 - torch.log(1 - last))
    return (prior + kl.sum() + decoder).item()


def found_bound(process: DiscreteVP, std: float, variance: str) -> float:
    """The same by the code: four pixels whose second moments are those of image and noise, and very fine bins."""
    x = torch.tensor([std, std, -std, -std], dtype=torch.float64).view(1, 1, 2, 2)
    eps = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).view(1, 1, 2, 2)
    denoiser = ExactDenoiser(GaussianMixture.gaussian((1, 2, 2), std), process)
    return -VariationalBound(denoiser, 2**16, variance)(x, lambda: eps).item() / 4


def test_the_decoder_has_the_variance_of_the_released_code():
    """It clips the log-variances of the posterior at that of step 2: 5.453e-5 on DDPM's schedule, not beta_1 = 1e-4."""
    seen, process = [], DiscreteVP(1000)
    denoiser = ExactDenoiser(GaussianMixture.gaussian((1, 2, 2), 0.5), process)

    def masses(x, mean, sigma, grey_levels):
        seen.append(sigma**2)
        return bin_log_prob(x, mean, sigma, grey_levels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("methods.diffusion.likelihood.bin_log_prob", masses)
        for variance in ("small", "large"):
            VariationalBound(denoiser, 256, variance)(torch.zeros(1, 1, 2, 2) + 1 / 256)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[:2]
    alpha_bar = torch.cumprod(1 - beta, 0)
    assert seen == [pytest.approx(float(beta[1] * (1 - alpha_bar[0]) / (1 - alpha_bar[1])), rel=1e-9)] * 2
    assert seen[0] == pytest.approx(5.453e-5, rel=1e-3)


def test_bound_of_a_gaussian_is_that_of_the_released_chain():
    process = DiscreteVP(1000)
    assert found_bound(process, 0.5, "small") == pytest.approx(expected_bound(process, 0.5, "small"), abs=1e-5)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize(
    "process", [DiscreteVP(60), DiscreteVP(40, "cosine"), DiscreteVP(80, "uniform", pure_noise=True)]
)
def test_bound_of_a_gaussian_is_the_sum_of_its_terms(process, variance):
    expected = expected_bound(process, 0.3, variance)
    assert found_bound(process, 0.3, variance) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_bound_stays_below_the_log_likelihood_of_grey_levels(variance):
    grey_levels, copies = 8, 600
    centres = ((torch.arange(grey_levels) + 0.5) * 2 / grey_levels - 1).view(-1, 1, 1, 1)
    pmf = torch.tensor([0.25, 0.05, 0.0, 0.1, 0.2, 0.02, 0.03, 0.35])
    mixture = GaussianMixture(centres, torch.zeros(grey_levels), pmf.clamp(min=1e-12))
    x = centres.repeat(copies, 1, 1, 1)
    weights = (pmf / copies).repeat(copies).double()
    gaps = []
    for steps in (20, 200):
        bound = VariationalBound(ExactDenoiser(mixture, DiscreteVP(steps)), grey_levels, variance)(x).double()
        truth = (pmf / (2 / grey_levels)).clamp(min=1e-12).log().repeat(copies)
        error = 4 * ((weights * bound.square()).sum() / (copies * grey_levels)).sqrt()
        gaps.append((weights * (truth - bound)).sum())
        assert gaps[-1] > -error
    assert gaps[1] < gaps[0] - 0.1


def test_bound_is_keyed_to_the_image_and_costs_what_it_states():
    mixture = GaussianMixture.example((1, 2, 2), spread=0.2)
    x = (mixture.sample(3)[0].clamp(-0.999, 0.999) * 4).floor() / 4 + 0.125
    denoiser = ExactDenoiser(mixture, DiscreteVP(20))
    likelihood = VariationalBound(denoiser, 8)
    together = likelihood(x, KeyedNoise(0, "bound", [4, 0, 7], (1, 2, 2)))
    assert denoiser.calls == likelihood.nfe == 20
    alone = [likelihood(x[i : i + 1], KeyedNoise(0, "bound", [k], (1, 2, 2))) for i, k in enumerate([4, 0, 7])]
    torch.testing.assert_close(together, torch.cat(alone))


def test_bound_needs_a_discrete_process():
    denoiser = ExactDenoiser(GaussianMixture.example(), PROCESSES["vp"])
    with pytest.raises(ValueError, match="needs a DiscreteVP process, got ContinuousVP"):
        VariationalBound(denoiser)


@given(mean=st.floats(-3, 3), log_sigma=st.floats(-7, 3), grey_levels=st.integers(2, 256))
def test_bin_masses_sum_to_one(mean, log_sigma, grey_levels):
    centres = (torch.arange(grey_levels, dtype=torch.float64) + 0.5) * 2 / grey_levels - 1
    masses = bin_log_prob(centres, torch.full_like(centres, mean), math.exp(log_sigma), grey_levels).exp()
    assert masses.sum().item() == pytest.approx(1, abs=1e-9)


def test_bin_masses_keep_their_digits_in_both_tails():
    """Forty deviations away, by the asymptotic series of the Gaussian tail."""
    sigma, half = 0.02, 1 / 256
    x, mean = torch.tensor([0.5, -0.5]), torch.tensor([-0.3, 0.3])
    near = (0.8 - half) / sigma

    def log_tail(z: float) -> float:
        return -0.5 * z**2 - math.log(z * math.sqrt(2 * math.pi)) + math.log1p(-(z**-2) + 3 * z**-4 - 15 * z**-6)

    expected = log_tail(near) + math.log1p(-math.exp(log_tail(near + 2 * half / sigma) - log_tail(near)))
    found = bin_log_prob(x, mean, sigma, 256)
    assert found.tolist() == pytest.approx([expected, expected], rel=1e-7)
