"""Another method with one loss term more."""

from abc import abstractmethod

from jsonargparse.typing import NonNegativeFloat
from torch import Tensor

from methods.base import Batch, Method
from methods.diffusion.samplers import Sampler


class Composed(Method):
    """Another method's losses, and a term of its classifier of noisy images.

    Args:
        method: Method with a classifier of noisy images.
        sampler: See ``Method``; so is ``guidance_scale``. Those of ``method`` are not used.

    Raises:
        ValueError: If the method has no classifier of noisy images, or keeps more in its checkpoints than weights.
    """

    def __init__(self, method: Method, sampler: Sampler | None = None, guidance_scale: NonNegativeFloat = 1.0) -> None:
        if method.noisy_process is None:
            raise ValueError(f"{type(method).__name__} has no classifier of noisy images")
        if type(method).on_save_checkpoint is not Method.on_save_checkpoint:
            raise ValueError(f"{type(method).__name__} keeps more than weights, which its losses alone do not carry on")
        parts = method.denoiser, method.classifier, sampler, None, guidance_scale, method.guides, method.clean_time
        super().__init__(*parts, start=method.start)
        self.method = method
        self.second_order = self.second_order or method.second_order

    def on_fit_start(self) -> None:
        """Prepare the method as it would be alone."""
        self.method.on_fit_start()

    @abstractmethod
    def term(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted term by its name."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.method.losses(batch) | self.term(batch)
