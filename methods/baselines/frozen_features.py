"""A head on the features of a trained diffusion model that is left as it is."""

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.denoiser import Pretrained
from methods.networks.joint_head import JointHead
from methods.networks.unet import UNet


class FrozenFeatures(Method):
    """Cross-entropy of joint diffusion's head on pooled features of clean images, by a UNet trained without labels.

    The network is in evaluation mode and gets no gradient. It is told the first noise level, as in training.

    Source: (e) Sec. 4 and Table 1, "pre-trained DDGM".

    Args:
        denoiser: Trained denoiser of a ``UNet`` that is not told classes.
        classes: Number of classes ``K``.
        head_dropout: Share dropped before each linear layer of the head.

    Raises:
        ValueError: If the denoiser's network is no UNet.
    """

    def __init__(self, denoiser: Pretrained, classes: PositiveInt, head_dropout: ClosedUnitInterval = 0.7) -> None:
        if not isinstance(denoiser.held.network, UNet):
            raise ValueError(f"features are read from a UNet, got {type(denoiser.held.network).__name__}")
        head = JointHead(denoiser.held.network.pooled_channels, classes, head_dropout)
        super().__init__(classifier=FrozenClassifier(denoiser, head))
        self.clean_time = denoiser.process.t_min

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["labeled"]
        return {"classify": F.cross_entropy(self.classify(x), y)}


class FrozenClassifier(nn.Module):
    """``p(y | x)`` by a head on the features of a frozen network.

    Args:
        denoiser: Of the network.
        head: ``(pooled features, t) -> logits``.
    """

    def __init__(self, denoiser: Pretrained, head: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.head = denoiser, head

    @torch.no_grad()
    def features(self, x: Tensor, t: Tensor) -> Tensor:
        """Pooled features ``(B, D)``."""
        trained = self.denoiser.trained()
        return trained.network.features(x, trained.process.log_sigma(t))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        return self.head(self.features(x, t), t)
