"""A classifier of noisy images without a gradient: what a guide has to beat before it says anything."""

from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from methods.base import Batch
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import noisy_cross_entropy
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.samplers import Sampler
from methods.untrained import Untrained


class ConstantClassifier(nn.Module):
    """Equal logits of ``classes`` classes, for every noisy image of a process."""

    def __init__(self, classes: int, process: NoiseProcess) -> None:
        super().__init__()
        self.classes, self.process = classes, process

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits ``(B, K)``, all zero, whose gradient in ``x_t`` is zero."""
        return (0 * x_t.flatten(1).sum(1, keepdim=True)).expand(-1, self.classes)


class Indifferent(Untrained):
    """Every class as likely for every image; as a guide it leaves the score model as it is. There is nothing to train.

    Args:
        denoiser: Trained denoiser.
        classes: Number of classes ``K``.
        sampler: See ``Method``.
    """

    def __init__(self, denoiser: Denoiser, classes: PositiveInt, sampler: Sampler | None = None) -> None:
        super().__init__(denoiser, ConstantClassifier(classes, denoiser.process), sampler, None)
        self.clean_time = denoiser.process.t_min

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, ``ln K``."""
        return {"classify": noisy_cross_entropy(self.classifier, *batch["labeled"])}
