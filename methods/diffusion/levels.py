"""Denoising and density by a classifier of noise levels: classification diffusion models, (c)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from methods.diffusion.denoiser import Denoiser
from methods.diffusion.likelihood import Likelihood, ProbabilityFlow
from methods.diffusion.process import DiscreteVP
from methods.diffusion.samplers import Noise

ODE_STEPS = 400
"""Most steps of a level classifier's ODE: all of 100 levels. On digits every third put it half a bit too low."""


class GaussianAnchor(nn.Module):
    """``log N(x; alpha_t m, alpha_t^2 S + sigma_t^2 I)`` at every level: what the logits of Gaussian images would be.

    Before ``fit`` it is that of N(0, I) images: the same at every level, which adds nothing.

    Args:
        shape: Of an image, ``(C, H, W)``.

    Example:
        >>> anchor = GaussianAnchor([1, 1, 2])
        >>> anchor(torch.zeros(1, 1, 1, 2), alpha_bar=torch.tensor([1.0, 0.0]).double())  # 2 log N(0; 0, 1)
        tensor([[-1.8379, -1.8379]])
    """

    def __init__(self, shape: Sequence[PositiveInt]) -> None:
        super().__init__()
        d = math.prod(shape)
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("variances", torch.ones(d))
        self.register_buffer("axes", torch.eye(d))

    def fit(self, mean: Tensor, covariance: Tensor) -> None:
        """Take over moments ``(d,)`` and ``(d, d)``."""
        variances, axes = torch.linalg.eigh(covariance.double())
        self.mean.copy_(mean), self.variances.copy_(variances), self.axes.copy_(axes)

    def forward(self, x: Tensor, alpha_bar: Tensor) -> Tensor:
        """Log-densities in nats, ``(B, levels)``, at levels of signal power ``alpha_bar``, ``(levels,)``, float64."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        power = alpha_bar[:, None]
        variances = power * self.variances + (1 - power)
        axes = self.axes.to(x.dtype)
        # (x - alpha m)^2 as (c + (1 - alpha) m)^2 with c = x - m: at low noise, where the variances are smallest, the
        # other terms of the square are small too.
        shift = (1 - power.sqrt()) * (self.mean @ self.axes)
        constant = (shift**2 / variances + torch.log(2 * math.pi * variances)).sum(1)
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            c = (x.flatten(1) - self.mean) @ axes
            square = c.square() @ (1 / variances).T.to(x.dtype) + c @ (2 * shift / variances).T.to(x.dtype)
        return -0.5 * (square + constant.to(x.dtype))


class LevelClassifier(nn.Module):
    """``f(x, y)``, logits of ``p(level | x, y)`` for images of levels ``0 .. T + 1`` drawn by ``p(level)``.

    Source: (c) Sec. 3; the anchor is not in it.

    Args:
        network: ``(x, y) -> (B, T + 2)``.
        process: Its levels; the last is pure noise.
        anchor: Added to the network's logits; the network then learns what a Gaussian misses.
        prior: ``p(level)``, ``(T + 2,)``; uniform if not given.

    Raises:
        ValueError: On a process without pure noise, or a network of another number of levels.

    Example:
        >>> process = DiscreteVP(2, pure_noise=True)
        >>> levels = LevelClassifier(lambda x, y: torch.zeros(len(x), 4), process)  # one that tells nothing
        >>> levels.log_prob(torch.zeros(1, 1, 1, 2), t=torch.zeros(1))  # every level is N(0, I)
        tensor([-1.8379])
    """

    def __init__(
        self,
        network: nn.Module,
        process: DiscreteVP,
        anchor: GaussianAnchor | None = None,
        prior: Tensor | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(process, DiscreteVP) or process.last == process.steps:
            raise ValueError(f"levels of noise need DiscreteVP(pure_noise=True), got {type(process).__name__} without")
        count = process.last + 1
        if getattr(network, "levels", count) != count:
            raise ValueError(f"{process.steps} steps need a network of {count} levels, got {network.levels}")
        self.network, self.process, self.anchor = network, process, anchor
        prior = torch.ones(count) if prior is None else prior
        self.register_buffer("prior", prior.double() / prior.double().sum(), persistent=False)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits ``(B, T + 2)``; without labels, of images of any class."""
        logits = self.network(x, y)
        return logits if self.anchor is None else logits + self.anchor(x, self.process.alpha_bar)

    def times_at(self, u: Tensor) -> Tensor:
        """The time at quantile ``u`` in [0, 1) of ``p(level)``, ``(B,) -> (B,)``."""
        edges = self.prior.double().cumsum(0)
        level = torch.searchsorted(edges / edges[-1], u.double(), right=True).clamp(max=self.process.last)
        return (level / self.process.last).float()

    def log_ratio(self, logits: Tensor, t: Tensor) -> Tensor:
        """``f[t] - f[T + 1]``, ``(B,)``: ``log p_t(x) / N(x; 0, I)`` up to a constant. In (c), ``-F(x, t)``."""
        return logits.gather(1, self.process.index(t)[:, None]).squeeze(1) - logits[:, -1]

    def log_prob(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """``log p_t(x)``, or ``log p_t(x | y)``, in nats, ``(B,)``: one evaluation at any level.

        Source: (c) Thm. 3.2.
        """
        return self.log_prob_from(self(x, y), x, t)

    def log_prob_from(self, logits: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """``log_prob`` when the logits of ``x`` are at hand."""
        odds = (self.prior[-1] / self.prior[self.process.index(t)]).log().to(x.dtype)
        normal = -0.5 * (x.square() + math.log(2 * math.pi)).flatten(1).sum(1)
        return odds + self.log_ratio(logits, t) + normal


class LevelDenoiser(Denoiser):
    """``E[eps | x_t] = sigma_t (x_t - grad (f[t] - f[T + 1]))``, so ``E[x | x_t] = alpha x_t + sigma^2 / alpha grad``.

    Differentiable where gradients are on, at the cost of a second backward pass.

    Source: (c) Thm. 3.1.

    Args:
        levels: ``f``.

    Example:
        >>> process = DiscreteVP(2, pure_noise=True)
        >>> levels = LevelClassifier(lambda x, y: x.flatten(1), process)
        >>> LevelDenoiser(levels).score(torch.zeros(1, 1, 2, 2), t=torch.zeros(1))  # grad (f[0] - f[3])
        tensor([[[[ 1.,  0.],
                  [ 0., -1.]]]])
    """

    def __init__(self, levels: LevelClassifier) -> None:
        super().__init__()
        self.levels, self.process = levels, levels.process

    def logits_and_slope(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``f(x_t, y)``, ``(B, T + 2)``, and ``grad (f[t] - f[T + 1])``, ``(B, C, H, W)``, by one evaluation."""
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            if not (differentiable and x_t.requires_grad):
                x_t = x_t.detach().requires_grad_()
            logits = self.levels(x_t, y)
            # Summed, not averaged, so that each image's gradient is its own.
            ratio = self.levels.log_ratio(logits, t).sum()
            (slope,) = torch.autograd.grad(ratio, x_t, create_graph=differentiable)
        return (logits if differentiable else logits.detach()), slope

    def eps_from(self, x_t: Tensor, t: Tensor, slope: Tensor) -> Tensor:
        """``E[eps | x_t]`` when the slope is at hand; 0 at the clean level, ``x_t`` at pure noise."""
        _, sigma = self.process.scales(t, like=x_t)
        return sigma * (x_t - slope)

    def eps(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.eps_from(x_t, t, self.logits_and_slope(x_t, t, y)[1])

    def score(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """``grad - x_t``, at clean images too."""
        return self.logits_and_slope(x_t, t, y)[1] - x_t

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Needs ``alpha > 0``: the mean of all images is no gradient."""
        alpha, sigma = self.process.scales(t, like=x_t)
        return alpha * x_t + sigma**2 / alpha * self.logits_and_slope(x_t, t, y)[1]


class SinglePass(Likelihood):
    """``log p(x) = f[0] - f[T + 1] + log N(x; 0, I)``, and likewise at every level.

    Exact for the optimal classifier. Nothing normalises a trained one: its density may have any mass. The likelihood of
    the same denoiser along its ODE, among ``diagnostics``, is normalised.

    Source: (c) Sec. 3.1.

    Example:
        >>> process = DiscreteVP(2, pure_noise=True)
        >>> levels = LevelClassifier(lambda x, y: torch.zeros(len(x), 4), process)  # one that tells nothing
        >>> SinglePass(LevelDenoiser(levels))(torch.zeros(1, 1, 1, 2))  # 2 log N(0; 0, 1)
        tensor([-1.8379])
    """

    kind, nfe = "unnormalised", 1

    def __init__(self, denoiser: LevelDenoiser) -> None:
        self.denoiser, self.ode = denoiser, ProbabilityFlow(denoiser, steps=ODE_STEPS)

    def __call__(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        return self.at(x, x.new_zeros(len(x)))

    @torch.no_grad()
    def at(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """``log p_t(x_t)``, or ``log p_t(x_t | y)``, in nats, ``(B,)``."""
        return self.denoiser.levels.log_prob(x_t, t, y)

    @torch.no_grad()
    def diagnostics(self, x: Tensor, noise: Noise, times: Tensor) -> dict[str, Tensor]:
        """Proper score and normalisation of the level classifier, which its log-density says nothing about.

        Of each image at a level of its own, ``(B,)``: ``level_ce``, cross-entropy in nats; ``level_right``, whether
        the most probable level is the true one; ``level_mse``, mean squared error of the noise, 1 at level 0 and 0 at
        pure noise, as (c) Table 1 counts it.
        ``level_balance``: ``log p_t(x) / p_{t+1}(x)`` at ``x ~ p_{t+1}`` for ``t = 0 .. T``, ``(B, T + 1)``. Over
        images, the mean of its exponential is 1 for the optimal classifier, at every ``t``. It looks at neighbouring
        levels at their own noise alone, where cross-entropy trains; it is not the mass of the single-pass density,
        which also asks what the classifier says of clean images about strong noise.
        ``ode_log_prob``: log-density of the denoiser along its probability-flow ODE, in nats, ``(B,)``.
        ``noisy_bits``: ``-log2 p_t(x_t)`` a pixel at ``times``, by a single pass each, ``(B, L)``.
        ``confusion``: what probability images at a group of levels (row) give to each group (column), averaged over the
        row's levels, ``(B, groups, groups)``; see ``level_groups``.

        Source: (c) Thm. 3.2, Table 1 and Fig. 9.
        """
        levels, process = self.denoiser.levels, self.denoiser.process
        t = levels.times_at(torch.special.ndtr(noise()[:, 0, 0, 0].double()))
        x_t, eps = process.perturb(x, t, noise())
        logits, slope = self.denoiser.logits_and_slope(x_t, t)
        errors = self.denoiser.eps_from(x_t, t, slope) - eps
        asked, groups = process.index(times), level_groups(process.last + 1).to(x)
        steps, noisy_bits = [], x.new_zeros(len(x), len(times))
        confusion = x.new_zeros(len(x), groups.shape[1], groups.shape[1])
        for level in range(process.last + 1):
            at = torch.full_like(t, level / process.last)
            x_t = process.perturb(x, at, noise())[0] if level else x
            of_level = levels(x_t)
            confusion += groups[level][:, None] * (of_level.softmax(1) @ groups)[:, None]
            noisy_bits[:, asked == level] = -levels.log_prob_from(of_level, x_t, at)[:, None] / _bit(x)
            if level:
                of_level = of_level - levels.prior.log().to(x.dtype)
                steps.append(of_level[:, level - 1] - of_level[:, level])
        return {
            "level_ce": F.cross_entropy(logits, process.index(t), reduction="none"),
            "level_right": logits.argmax(1) == process.index(t),
            "level_mse": errors.square().flatten(1).mean(1),
            "level_balance": torch.stack(steps, dim=1),
            "ode_log_prob": self.ode(x, noise),
            "noisy_bits": noisy_bits,
            "confusion": confusion / groups.sum(0)[:, None],
        }


class BayesClassifier(nn.Module):
    """``p(y | x_t)`` by Bayes' rule over the one-pass densities of the classes: ``K`` evaluations. Not in (c).

    Args:
        denoiser: Of a class-conditional level classifier.
        prior: ``p(y)``, ``(K,)``.

    Example:
        >>> process = DiscreteVP(2, pure_noise=True)
        >>> levels = LevelClassifier(lambda x, y: torch.zeros(len(x), 4), process)  # one that tells nothing
        >>> classifier = BayesClassifier(LevelDenoiser(levels), prior=torch.tensor([0.25, 0.75]))
        >>> classifier(torch.zeros(1, 1, 1, 2), t=torch.zeros(1)).softmax(1)
        tensor([[0.2500, 0.7500]])
    """

    def __init__(self, denoiser: LevelDenoiser, prior: Tensor) -> None:
        super().__init__()
        self.__dict__["denoiser"] = denoiser  # registered once, as the method's denoiser
        self.process = denoiser.process
        self.register_buffer("prior", prior / prior.sum(), persistent=False)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``log p_t(x_t, y)`` of every class, ``(B, K)``."""
        levels = self.__dict__["denoiser"].levels
        classes = [torch.full((len(x_t),), y, device=x_t.device) for y in range(len(self.prior))]
        return torch.stack([levels.log_prob(x_t, t, y) for y in classes], dim=1) + self.prior.log().to(x_t.dtype)


def level_groups(levels: int, most: int = 20) -> Tensor:
    """Membership of each level in one of at most ``most`` groups of neighbours, ``(levels, groups)``, 0 or 1."""
    groups = min(levels, most)
    return F.one_hot(torch.arange(levels) * groups // levels, groups).float()


def _bit(x: Tensor) -> float:
    """Nats of an image at one bit a pixel."""
    return x[0].numel() * math.log(2)
