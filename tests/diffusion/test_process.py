import copy
import math

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from methods.diffusion.noise_process import MAX_LOG_SIGMA, NoiseProcess
from methods.diffusion.process import ContinuousVP, DiscreteVP, LogNormalSigma, UniformTimes, VarianceExploding

PROCESSES = {
    "ve": VarianceExploding(),
    "vp": ContinuousVP(),
    "linear": DiscreteVP(1000),
    "cosine": DiscreteVP(40, "cosine"),
    "uniform": DiscreteVP(1000, "uniform", pure_noise=True),
    "one level": DiscreteVP(1),
    "one level and noise": DiscreteVP(1, pure_noise=True),
}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
variance_preserving = pytest.mark.parametrize("process", list(PROCESSES.values())[1:], ids=list(PROCESSES)[1:])
doubles = torch.float64


def times(process: NoiseProcess, n: int = 101, dtype: torch.dtype = doubles) -> torch.Tensor:
    return torch.linspace(process.t_min, process.t_max, n, dtype=dtype)


@variance_preserving
def test_alpha_and_sigma_preserve_unit_variance(process):
    t = torch.linspace(0, 1, 201, dtype=doubles)
    torch.testing.assert_close(process.alpha(t) ** 2 + process.sigma(t) ** 2, torch.ones_like(t), atol=1e-14, rtol=0)


@every_process
def test_log_snr_is_that_of_the_scales_and_falls(process):
    t = times(process)
    ratio = 2 * torch.log(process.alpha(t) / process.sigma(t))
    torch.testing.assert_close(process.log_snr(t), ratio, atol=1e-9, rtol=1e-9)
    assert (process.log_snr(t).diff() <= 0).all()


@every_process
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_time_inverts_log_snr(process, dtype):
    t = times(process, dtype=dtype)
    if isinstance(process, DiscreteVP):
        t = process.index(t).to(dtype) / process.last
    torch.testing.assert_close(
        process.time(process.log_snr(t)), t, atol=2e-6 if dtype == torch.float32 else 1e-12, rtol=0
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine", "uniform"])
def test_between_its_levels_a_discrete_process_is_continuous(schedule):
    process = DiscreteVP(50, schedule, pure_noise=True)
    between = process.continuous()
    t = (torch.arange(1, 51) / 51).double()
    same = between.time(process.log_snr(t))
    torch.testing.assert_close(same[[0, -1]], torch.tensor([0.0, 1.0]).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(between.log_snr(same), process.log_snr(t))
    torch.testing.assert_close(between.alpha(same), process.alpha(t))
    torch.testing.assert_close(between.sigma(same), process.sigma(t))
    assert len(between.alpha(torch.linspace(0, 1, 1000)).unique()) > 900
    assert between.continuous() is between


@given(t=st.floats(0, 1), low=st.floats(0.001, 1), factor=st.floats(1.01, 1e6))
def test_time_inverts_log_snr_of_any_exploding_process(t, low, factor):
    process = VarianceExploding(low, low * factor)
    time = torch.tensor([t], dtype=doubles)
    torch.testing.assert_close(process.time(process.log_snr(time)), time, atol=1e-9, rtol=0)


@given(t=st.floats(1e-3, 1), low=st.floats(1e-3, 1), width=st.floats(0.1, 40))
def test_time_inverts_log_snr_of_any_preserving_process(t, low, width):
    process = ContinuousVP(low, low + width)
    time = torch.tensor([t], dtype=doubles)
    torch.testing.assert_close(process.time(process.log_snr(time)), time, atol=1e-8, rtol=1e-8)


@given(log_snr=st.floats(-15, 15), steps=st.integers(1, 60), schedule=st.sampled_from(["linear", "cosine", "uniform"]))
def test_time_of_a_discrete_process_is_its_nearest_noisy_level(log_snr, steps, schedule):
    process = DiscreteVP(steps, schedule, pure_noise=True)
    levels = torch.arange(1, steps + 1, dtype=doubles) / process.last
    wanted = torch.tensor([log_snr], dtype=doubles)
    found = process.time(wanted)
    assert process.t_min <= found <= process.t_max
    assert (process.log_snr(found) - wanted).abs() <= (process.log_snr(levels) - wanted).abs().min() + 1e-9


def test_infinite_log_snr_is_the_clean_level_and_pure_noise():
    process = DiscreteVP(10, pure_noise=True)
    assert process.time(torch.tensor([math.inf, 50.0, -50.0, -math.inf])).tolist() == pytest.approx(
        [0, 1 / 11, 10 / 11, 1]
    )


def test_exploding_noise_has_the_published_values():
    process = VarianceExploding(0.01, 50)  # in units of an image range of one
    t = torch.tensor([0.0, 0.001, 0.01, 0.35, 0.5, 1.0], dtype=doubles)
    sigma = torch.tensor([0.01, 0.010086, 0.010889, 0.19708, 0.70711, 50.0], dtype=doubles)
    torch.testing.assert_close(process.sigma(t), sigma, atol=0, rtol=5e-5)


def test_preserving_sde_has_its_closed_form_scale():
    t = torch.tensor([0.3, 1.0], dtype=doubles)
    expected = torch.exp(-0.25 * t**2 * 19.9 - 0.5 * t * 0.1)
    torch.testing.assert_close(ContinuousVP().alpha(t), expected, atol=0, rtol=1e-13)


def test_ddpm_noise_has_the_published_values():
    process = DiscreteVP(1000)
    assert process.alpha_bar[0] == 1
    assert math.sqrt(1 - process.alpha_bar[1]) == pytest.approx(0.01, rel=1e-9)
    assert process.alpha_bar[1000].item() == pytest.approx(4.0358e-5, rel=1e-4)


def test_uniform_schedule_has_even_sigmas_and_the_published_betas():
    process = DiscreteVP(1000, "uniform", pure_noise=True)
    levels = torch.arange(1002, dtype=doubles)
    torch.testing.assert_close(process.sigma(levels / 1001), levels / 1001, atol=1e-10, rtol=0)
    beta = 1 - process.alpha_bar[1:] / process.alpha_bar[:-1]
    published = {1: 9.98e-7, 10: 1.896e-5, 500: 1.3267e-3, 1000: 0.49975, 1001: 1.0}
    assert {level: beta[level - 1].item() for level in published} == pytest.approx(published, rel=2e-4)


@pytest.mark.parametrize(
    ("steps", "schedule", "reference"),
    [
        (1000, "linear", DDPMScheduler(1000, beta_schedule="linear")),
        (500, "linear", DDPMScheduler(500, beta_start=2e-4, beta_end=0.04, beta_schedule="linear")),
        (100, "cosine", DDPMScheduler(100, beta_schedule="squaredcos_cap_v2")),
    ],
)
def test_alpha_bar_equals_the_one_of_diffusers(steps, schedule, reference):
    ours = DiscreteVP(steps, schedule).alpha_bar[1:].float()
    torch.testing.assert_close(ours, reference.alphas_cumprod, atol=1e-6, rtol=2e-4)  # theirs is a float32 product


def test_clean_and_pure_noise_levels_are_exact():
    process = DiscreteVP(1000, pure_noise=True)
    x, ends = torch.randn(2, 3, 4, 4), torch.tensor([0.0, 1.0])
    x_t, eps = process.perturb(x, ends)
    assert torch.equal(x_t[0], x[0])
    assert torch.equal(x_t[1], eps[1])
    assert process.log_sigma(ends).tolist() == [-MAX_LOG_SIGMA, MAX_LOG_SIGMA]


@pytest.mark.parametrize("pure_noise", [False, True])
def test_every_level_survives_single_precision_times(pure_noise):
    process = DiscreteVP(1000, pure_noise=pure_noise)
    levels = torch.arange(process.last + 1)
    assert torch.equal(process.index((levels / process.last).float()), levels)


def test_published_grids_of_fifty_and_twenty_five_levels():
    process = DiscreteVP(1000, pure_noise=True)
    assert process.index(process.grid(50)).tolist() == list(range(981, 0, -20))
    assert process.index(process.grid(25)).tolist() == list(range(961, 0, -40))
    assert process.index(process.grid(1000)).tolist() == list(range(1000, 0, -1))


@given(levels=st.integers(1, 300), data=st.data())
def test_discrete_grid_spans_the_process_for_any_number_of_steps(levels, data):
    steps = data.draw(st.integers(1, levels))
    process = DiscreteVP(levels)
    grid = process.index(process.grid(steps))
    gaps = -grid.diff()
    assert len(grid) == steps
    assert grid[-1] == 1
    assert grid[0] > levels - levels / steps
    assert steps == 1 or gaps.max() - gaps.min() <= 1


def test_more_steps_than_levels_are_refused():
    with pytest.raises(ValueError, match=r"11 steps.* 10"):
        DiscreteVP(10).grid(11)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)])
@pytest.mark.parametrize("process", [VarianceExploding, ContinuousVP])
def test_empty_ranges_are_refused(process, ends):
    with pytest.raises(ValueError, match="need 0 <"):
        process(*ends)


@pytest.mark.parametrize("name", ["ve", "vp"])
def test_continuous_grid_falls_evenly_between_the_ends(name):
    process = PROCESSES[name]
    grid = process.grid(5)
    assert (grid[0], grid[-1]) == (process.t_max, process.t_min)
    torch.testing.assert_close(grid.diff(), torch.full_like(grid[1:], (process.t_min - process.t_max) / 4))


@every_process
def test_levels_are_the_scales_in_double_precision(process):
    t = times(process, 7)
    for time, level in zip(t, process.levels(t), strict=True):
        assert level == (time, process.alpha(time[None]), process.sigma(time[None]))
        assert level.noise_ratio == level.sigma / level.alpha


@every_process
def test_a_cast_model_keeps_the_precision_of_its_levels(process):
    t = times(process, 7)
    assert copy.deepcopy(process).to(torch.bfloat16).levels(t) == process.levels(t)


@every_process
def test_perturbed_images_have_the_mean_and_the_spread_of_the_kernel(process):
    t = torch.full((20_000,), process.t_max)
    x_t, eps = process.perturb(torch.full((20_000, 1), 0.7), t)
    alpha, sigma = process.alpha(t)[0], process.sigma(t)[0]
    torch.testing.assert_close(x_t, alpha * 0.7 + sigma * eps)
    assert (x_t.mean() - 0.7 * alpha).abs() < 4 * sigma / math.sqrt(20_000)
    assert x_t.std() == pytest.approx(sigma.item(), rel=0.02)


@every_process
def test_training_times_are_uniform_over_the_visited_range(process):
    t = UniformTimes()(process, 20_000, torch.device("cpu"))
    low, high = process.t_min, process.t_max
    assert t.dtype == torch.float32
    assert low - 1e-6 <= t.min()
    assert t.max() <= high + 1e-6
    assert t.mean().item() == pytest.approx((low + high) / 2, abs=4 * (high - low + 1e-6) / math.sqrt(12 * 20_000))


def test_training_visits_every_noisy_level_and_no_other():
    process = DiscreteVP(10, pure_noise=True)
    assert process.index(process.sample_times(1000)).unique().tolist() == list(range(1, 11))


@every_process
def test_log_normal_sigmas_stay_in_the_range_of_the_process(process):
    law = LogNormalSigma(mean=-0.6, std=1.4)
    t = law(process, 20_000, torch.device("cpu"))
    assert process.t_min - 1e-6 <= t.min()
    assert t.max() <= process.t_max + 1e-6
    if isinstance(process, VarianceExploding | ContinuousVP):
        log_sigma = process.log_sigma(t)
        assert log_sigma.median().item() == pytest.approx(-0.6, abs=0.05)
        assert (log_sigma.quantile(0.84) - log_sigma.quantile(0.16)).item() / 2 == pytest.approx(1.4, abs=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_grids_are_made_on_the_cpu_for_a_process_on_any_device():
    for process in PROCESSES.values():
        t, on_gpu = times(process, 7), copy.deepcopy(process).cuda()
        assert on_gpu.levels(on_gpu.time(on_gpu.log_snr(t))) == process.levels(process.time(process.log_snr(t)))
        assert on_gpu.alpha(t.cuda()).is_cuda
