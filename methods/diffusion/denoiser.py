"""Denoisers: estimates of ``E[x | x_t]`` by a network under one of the usual parametrisations."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveFloat
from torch import Tensor, nn

from methods.diffusion.noise_process import NoiseProcess
from methods.weight_files import check_plain, read_weights


class Denoiser(nn.Module, ABC):
    """``E[x | x_t]``, or ``E[x | x_t, y]`` when given labels; noise and score follow from it."""

    process: NoiseProcess
    exact: bool = False
    """Tell whether its scores, those of a class included, are exact, so that gradients can be held against them."""

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Estimate of the clean images, ``(B, C, H, W)``, from ``x_t``, times ``(B,)`` and labels ``(B,)``."""

    def eps(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Estimate of the noise, ``(x_t - alpha D) / sigma``; needs ``sigma > 0``."""
        alpha, sigma = self.process.scales(t, like=x_t)
        return (x_t - alpha * self(x_t, t, y)) / sigma

    def score(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Estimate of ``grad log p(x_t)``, ``-eps / sigma``."""
        _, sigma = self.process.scales(t, like=x_t)
        return -self.eps(x_t, t, y) / sigma

    def on(self, process: NoiseProcess) -> "Denoiser":
        """The same network at the noise levels of another process.

        Raises:
            ValueError: If it is told its process's levels by another name than their noise.
        """
        raise ValueError(f"{type(self).__name__} knows no noise levels between those of its discrete process")

    def matching_loss(self, x: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None) -> Tensor:
        """Denoising score matching, mean over pixels of ``(eps_hat - eps)^2``, ``(B,)``."""
        x_t, _ = self.process.perturb(x, t, eps)
        return (self.eps(x_t, t, y) - eps).square().flatten(1).mean(1)


class EpsDenoiser(Denoiser):
    """A network that predicts the noise: ``eps = F(x_t, log sigma, y)``.

    Source: Ho et al. 2020 (arXiv:2006.11239), Eq. 14.

    Example:
        >>> from methods.diffusion.process import VarianceExploding
        >>> denoiser = EpsDenoiser(lambda x_t, log_sigma, y: torch.zeros_like(x_t), VarianceExploding())
        >>> denoiser(torch.ones(1, 1, 1, 2), t=torch.tensor([0.5]))
        tensor([[[[1., 1.]]]])
    """

    def __init__(self, network: nn.Module, process: NoiseProcess) -> None:
        super().__init__()
        self.network, self.process = network, process

    def on(self, process: NoiseProcess) -> "EpsDenoiser":
        return EpsDenoiser(self.network, process)

    def eps(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.network(x_t, self.process.log_sigma(t), y).to(x_t.dtype)  # autocast halves its precision

    @property
    def features(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Features ``(B, D)`` that the network reads in noisy images at times ``(B,)``; None if it has none."""
        read = getattr(self.network, "features", None)
        return None if read is None else lambda x_t, t: read(x_t, self.process.log_sigma(t))

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        alpha, sigma = self.process.scales(t, like=x_t)
        return (x_t - sigma * self.eps(x_t, t, y)) / alpha


class EDMDenoiser(Denoiser):
    """A network behind the preconditioning that keeps its input and target at unit variance.

    With ``s^2 = sigma^2 + alpha^2 sd^2``, ``cos = alpha sd / s``, ``sin = sigma / s`` and ``z = x_t / s``, the network
    ``F(z, log sigma, y)`` estimates ``sin x / sd - cos eps`` and ``D = sd (cos z + sin F)``.

    Source: Karras et al. 2022 (arXiv:2206.00364), Table 1 and Eq. 7, written for any ``alpha``.

    Args:
        network: ``F``.
        process: Noise process.
        data_std: ``sd``, standard deviation of the pixels in [-1, 1].

    Example:
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda z, log_sigma, y: 0, VarianceExploding(0.5, 50.0), data_std=0.5)
        >>> gaussian(torch.ones(1, 1, 1, 2), t=torch.zeros(1))  # exact for images N(0, 0.25 I)
        tensor([[[[0.5000, 0.5000]]]])
    """

    def __init__(self, network: nn.Module, process: NoiseProcess, data_std: PositiveFloat = 0.5) -> None:
        super().__init__()
        self.network, self.process, self.data_std = network, process, data_std

    def on(self, process: NoiseProcess) -> "EDMDenoiser":
        return EDMDenoiser(self.network, process, self.data_std)

    def _normalise(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``cos``, ``sin`` and ``z``."""
        alpha, sigma = self.process.scales(t, like=x_t)
        s = torch.sqrt(sigma**2 + (alpha * self.data_std) ** 2)
        return alpha * self.data_std / s, sigma / s, x_t / s

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        cos, sin, z = self._normalise(x_t, t)
        return self.data_std * (cos * z + sin * self.network(z, self.process.log_sigma(t), y))

    def matching_loss(self, x: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None) -> Tensor:
        """Mean over pixels of the squared error of ``F``, ``(B,)``: the EDM weighting of the denoising error."""
        cos, sin, z = self._normalise(self.process.perturb(x, t, eps)[0], t)
        target = sin * x / self.data_std - cos * eps
        return (self.network(z, self.process.log_sigma(t), y) - target).square().flatten(1).mean(1)


class Clipped(Denoiser):
    """Another denoiser's estimate cut to the range of images, [-1, 1]; noise and score follow from what is left.

    Inside a guided denoiser the estimate is cut before the class score is added.

    Source: Dhariwal and Nichol 2021 (arXiv:2105.05233), official code, ``clip_denoised``, on in its sampling by DDIM
    and in the classifier-guided sampling of (e).

    Example:
        >>> from methods.diffusion.process import VarianceExploding
        >>> denoiser = Clipped(EpsDenoiser(lambda x_t, log_sigma, y: torch.zeros_like(x_t), VarianceExploding()))
        >>> denoiser(torch.tensor([[[[0.5, 2.0]]]]), t=torch.tensor([0.5]))
        tensor([[[[0.5000, 1.0000]]]])
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.process = denoiser, denoiser.process

    def on(self, process: NoiseProcess) -> "Clipped":
        return Clipped(self.denoiser.on(process))

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.denoiser(x_t, t, y).clamp(-1, 1)


class Pretrained(Denoiser):
    """A trained denoiser, frozen and held by reference: in no optimiser, no weight average and no checkpoint.

    Its weights are read at the first use, so that a method which needs it for sampling alone trains without it.

    Args:
        denoiser: Built as it was for training.
        checkpoint: File of the method that trained it; its ``denoiser.*`` weights are taken.

    Example:
        >>> from methods.diffusion.process import VarianceExploding
        >>> frozen = Pretrained(EpsDenoiser(nn.Conv2d(1, 1, 3), VarianceExploding()), "score_model.ckpt")
        >>> list(frozen.parameters()), frozen.process.sigma_max
        ([], 100.0)
    """

    def __init__(self, denoiser: Denoiser, checkpoint: str) -> None:
        super().__init__()
        self.checkpoint = Path(checkpoint).expanduser().absolute()
        self._loaded = False
        # Past nn.Module's registration: what is not a submodule is neither saved, averaged nor optimised.
        self.__dict__["held"] = denoiser.eval().requires_grad_(False)

    @property
    def process(self) -> NoiseProcess:
        return self.__dict__["held"].process

    @property
    def exact(self) -> bool:
        return self.__dict__["held"].exact

    def trained(self) -> Denoiser:
        """The denoiser with its weights.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds no denoiser, or another one.
        """
        held = self.__dict__["held"]
        if not self._loaded:
            weights = part_of_checkpoint(self.checkpoint, "denoiser")
            try:
                held.load_state_dict(weights)
            except RuntimeError:  # whose message has a line for each weight
                raise ValueError(f"{self.checkpoint} was trained with another denoiser than the one given") from None
            self._loaded = True
        return held

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.trained()(x_t, t, y)

    def eps(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.trained().eps(x_t, t, y)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Pretrained":
        self.__dict__["held"]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Pretrained":
        return self


class Replaced(Pretrained):
    """Placeholder of a trained denoiser that a suite replaces as a whole: it has no arguments that could be left over.

    Raises:
        TypeError: It is never built.

    Example:
        >>> Replaced()
        Traceback (most recent call last):
            ...
        TypeError: a denoiser that was to be replaced is asked for
    """

    def __init__(self) -> None:
        raise TypeError("a denoiser that was to be replaced is asked for")


def networks_of(method: nn.Module) -> list[nn.Module]:
    """The networks behind the parts of a method, each once, those of a frozen denoiser included."""
    parts = list(method.modules())
    parts += [held for part in parts if isinstance(part, Pretrained) for held in part.held.modules()]
    return list(dict.fromkeys(part.network for part in parts if isinstance(getattr(part, "network", None), nn.Module)))


def part_of_checkpoint(path: Path, part: str) -> dict[str, Tensor]:
    """Weights under ``part.`` in the ``state_dict`` of a checkpoint, without that prefix.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, holds no such part, or a weight of it cannot be used.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no trained {part} at {path}; train it first, or name another file by its key 'checkpoint'"
        )
    content = read_weights(path, "train it again, or name another file by its key 'checkpoint'")
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds no weights named {part}.*; it is no checkpoint of a method")
    start = f"{part}."
    found = {name.removeprefix(start): value for name, value in state.items() if str(name).startswith(start)}
    if not found:
        raise ValueError(f"{path} holds no weights named {part}.*; it is a checkpoint of another method")
    try:
        check_plain(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return found
