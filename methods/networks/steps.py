"""Embeddings of the noise level for networks of discrete processes: as a step of the linear schedule."""

import math

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn


class StepEmbedding(nn.Module):
    """Sines and cosines of the step that has this noise level, then ``Linear -> SiLU -> Linear``: ``(B,) -> (B, E)``.

    Steps ``0 ... steps - 1`` are those of the linear schedule, ``log sigma`` between two of them is a fraction of a
    step, and what lies beyond is the first or the last one. Frequencies are geometric from 1 to 1e-4 per step.

    Source: Ho et al. 2020 (arXiv:2006.11239), App. B and code.

    Args:
        frequencies: Number of frequencies.
        embedding: Width ``E``.
        steps: Length of the table; both ends of ``beta``, 1e-4 and 0.02, are scaled by ``1000 / steps``.

    Raises:
        ValueError: If ``steps < 2``.
    """

    def __init__(self, frequencies: int, embedding: int, steps: PositiveInt = 1000) -> None:
        super().__init__()
        if steps < 2:
            raise ValueError(f"steps must be at least 2 to have something between them, got {steps}")
        beta = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64) * (1000 / steps)
        alpha_bar = torch.cumprod(1 - beta.clamp(max=0.999), dim=0)
        table = -0.5 * torch.logit(alpha_bar)
        exponents = torch.arange(frequencies) / max(frequencies - 1, 1)
        self.register_buffer("log_sigmas", table.float(), persistent=False)
        self.register_buffer("frequencies", torch.exp(-math.log(10_000) * exponents), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

    def step(self, log_sigma: Tensor) -> Tensor:
        """Step of each noise level, ``(B,)``: exact for the levels of the table, linear in between."""
        table = self.log_sigmas
        log_sigma = log_sigma.to(table.dtype).clamp(table[0], table[-1]).contiguous()
        above = torch.searchsorted(table, log_sigma).clamp(min=1)
        low, high = table[above - 1], table[above]
        return above - 1 + (log_sigma - low) / (high - low)

    def forward(self, log_sigma: Tensor) -> Tensor:
        phase = self.step(log_sigma)[:, None] * self.frequencies
        return self.layers(torch.cat([phase.sin(), phase.cos()], dim=1))


class GuidedStepEmbedding(StepEmbedding):
    """``StepEmbedding`` at frequencies ``10_000 ** (-j / n)``: the last of ``n`` is not quite 1e-4 per step.

    Published weights of guided diffusion, and of (e), need a network that is told the noise level so.

    Source: Dhariwal and Nichol 2021 (arXiv:2105.05233), code.

    Args:
        frequencies: As in ``StepEmbedding``; so are ``embedding`` and ``steps``.
    """

    def __init__(self, frequencies: int, embedding: int, steps: PositiveInt = 1000) -> None:
        super().__init__(frequencies, embedding, steps)
        self.frequencies = torch.exp(-math.log(10_000) * torch.arange(frequencies) / frequencies)
