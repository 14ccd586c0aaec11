"""The two supervised classifiers of noisy images: their losses, and what guidance through them costs."""

import pytest
import torch
import torch.nn.functional as F
from oracles import ExactClassifier, ExactDenoiser, GaussianMixture
from torch import nn

from methods.base import KeyedNoise
from methods.denoising_assisted import DenoisingAssisted, Undenoised
from methods.diffusion.denoiser import Denoiser, EDMDenoiser, Pretrained
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.process import ContinuousVP, DiscreteVP, LogNormalSigma, VarianceExploding
from methods.diffusion.samplers import Heun
from methods.networks.unet import UNet
from methods.networks.wrn import WideResNet
from methods.noisy_classifier import NoisyClassifierGuidance

MIXTURE = GaussianMixture.example((1, 8, 8))
PROCESSES = {"ve": VarianceExploding(0.01, 20.0), "vp": ContinuousVP(), "discrete": DiscreteVP(100)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
METHODS = {
    "noisy": lambda denoiser, **kw: NoisyClassifierGuidance(denoiser, WideResNet(1, 3, depth=10, width=1), **kw),
    "assisted": lambda denoiser, **kw: DenoisingAssisted(denoiser, WideResNet(1, 3, depth=10, width=1, inputs=2), **kw),
}
every_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


def exact_denoiser(process: NoiseProcess) -> ExactDenoiser:
    return ExactDenoiser(MIXTURE, process)


def labeled(n: int = 32) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {"labeled": MIXTURE.sample(n)}


@pytest.fixture
def trained_denoiser(tmp_path) -> Pretrained:
    """A denoiser as a suite hands it over, with random weights in its file."""
    process = PROCESSES["vp"]

    def untrained() -> Denoiser:
        return EDMDenoiser(UNet(1, width=8, multipliers=(1, 2), blocks=1, attention=()), process)

    weights = {f"denoiser.{name}": torch.randn_like(value) / 8 for name, value in untrained().state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "final.ckpt")
    return Pretrained(untrained(), str(tmp_path / "final.ckpt"))


@every_process
@pytest.mark.parametrize("times", [None, LogNormalSigma(0.0, 1.0)], ids=["own", "log-normal"])
def test_the_noisy_loss_is_the_cross_entropy_of_noisy_images_at_times_of_the_law(process, times):
    method = METHODS["noisy"](exact_denoiser(process), times=times)
    method.classifier = ExactClassifier(MIXTURE, process)
    batch = labeled()
    torch.manual_seed(5)
    (loss,) = method.losses(batch).values()
    torch.manual_seed(5)
    x, y = batch["labeled"]
    t = process.sample_times(len(x)) if times is None else times(process, len(x), x.device)
    x_t, _ = process.perturb(x, t)
    posterior = MIXTURE.class_log_joint(x_t, process.alpha(t), process.sigma(t)).log_softmax(1)
    torch.testing.assert_close(loss, F.nll_loss(posterior, y).float())


@every_process
def test_the_assisted_network_reads_the_noisy_image_and_the_estimated_mean_of_its_noise_kernel(process):
    """With signal decay the second input is ``alpha E[x | x_t]``, what the noise was added to."""

    class Recorder(nn.Module):
        def forward(self, pair, log_sigma):
            self.seen = (*pair, log_sigma)
            self.logits = pair[1].flatten(1)[:, :3]
            return self.logits

    denoiser, network, batch = exact_denoiser(process), Recorder(), labeled()
    loss = DenoisingAssisted(denoiser, network).losses(batch)["classify"]
    x_t, x_hat, log_sigma = network.seen
    t = process.time(-2 * log_sigma)
    alpha, sigma = process.scales(t, like=x_t)
    torch.testing.assert_close(x_hat, (alpha * MIXTURE.denoise(x_t, alpha, sigma)).float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loss, F.cross_entropy(network.logits, batch["labeled"][1]))
    assert len(log_sigma.unique()) > len(log_sigma) / 2
    assert denoiser.calls == 1


@every_process
def test_undenoised_the_second_input_is_a_copy_through_which_gradients_flow_too(process):
    class Sum(nn.Module):
        def forward(self, pair, log_sigma):
            self.seen = pair
            return (pair[0] + 2 * pair[1]).flatten(1)[:, :3]

    method = DenoisingAssisted(Undenoised(process), Sum())
    method.losses(labeled())
    x_t, copy = method.classifier.network.seen
    torch.testing.assert_close(copy, x_t)
    x_t, t = x_t.detach().requires_grad_(), process.sample_times(len(x_t))
    (gradient,) = torch.autograd.grad(method.classifier(x_t, t)[:, 0].sum(), x_t)
    torch.testing.assert_close(gradient.flatten(1)[:, 0], torch.full((len(x_t),), 3.0))
    assert not method.denoiser.eps(x_t, t).any()


def test_a_masked_input_is_the_same_as_a_blank_one_to_a_network_that_standardises():
    """Neither the noisy image nor its estimate leaves a trace where it is masked, and one evaluation makes both."""
    denoiser = exact_denoiser(PROCESSES["vp"])
    classifier = METHODS["assisted"](denoiser).eval().classifier
    nn.init.normal_(classifier.network.head.weight)
    x, t = MIXTURE.sample(6)[0], torch.full((6,), 0.4)
    x_t, _ = denoiser.process.perturb(x, t)
    masked = classifier.masked(x_t, t)
    assert denoiser.calls == 1
    alpha, _ = denoiser.process.scales(t, like=x_t)
    x_hat, log_sigma = alpha * denoiser(x_t, t), denoiser.process.log_sigma(t)
    blank = torch.full_like(x_t, 0.7)  # of no contrast: standardised, it is zero too
    torch.testing.assert_close(masked["x"], classifier.network((blank, x_hat), log_sigma))
    torch.testing.assert_close(masked["denoised"], classifier.network((x_t, blank), log_sigma))
    whole = classifier(x_t, t)
    assert all((whole - part).abs().max() > 1e-3 for part in masked.values())


def test_training_leaves_the_denoiser_alone_and_builds_no_graph_through_it(trained_denoiser):
    method = METHODS["assisted"](trained_denoiser).train()
    x, t = MIXTURE.sample(4)[0], torch.full((4,), 0.5)
    before = trained_denoiser(x, t)
    estimates = []
    trained_denoiser.register_forward_hook(lambda module, args, output: estimates.append(output))
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1)
    method.losses(labeled())["classify"].backward()
    optimizer.step()
    assert [x_hat.requires_grad for x_hat in estimates] == [False]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert torch.equal(trained_denoiser(x, t), before)


def test_the_noisy_classifier_trains_without_the_denoiser(tmp_path):
    process = PROCESSES["ve"]
    missing = Pretrained(EDMDenoiser(nn.Identity(), process), str(tmp_path / "none.ckpt"))
    method = METHODS["noisy"](missing)
    assert method.losses(labeled())["classify"].isfinite()
    assert {name.split(".")[0] for name in method.state_dict()} == {"classifier"}


@every_method
def test_a_guided_step_evaluates_the_score_network_once_and_a_sample_as_often_as_stated(make):
    denoiser, process = exact_denoiser(PROCESSES["ve"]), PROCESSES["ve"]
    method = make(denoiser, sampler=Heun(4), guidance_scale=2.0).eval()
    x, y = MIXTURE.sample(4)
    method.guidance()(process.perturb(x, torch.full((4,), 0.5))[0], torch.full((4,), 0.5), y)
    assert denoiser.calls == 1
    method.sample(KeyedNoise(0, "sample", range(4), MIXTURE.shape), y)
    assert denoiser.calls == 1 + method.sampler.nfe


@every_method
@every_process
def test_only_what_is_trained_is_saved_and_clean_images_have_logits(make, process):
    method = make(exact_denoiser(process)).eval()
    assert {name.split(".")[0] for name in method.state_dict()} == {"classifier"}
    x, _ = MIXTURE.sample(5)
    assert method.classify(x).shape == (5, 3)
    assert method.classify(x).isfinite().all()
    assert method.noisy_process is process
    one_input = {"masked"} if isinstance(method, NoisyClassifierGuidance) else set()
    assert set(method.unsupported) == {"sample", "log_prob", "diagnostics", "denoise"} | one_input
