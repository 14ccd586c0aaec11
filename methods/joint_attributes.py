"""Joint diffusion with many binary attributes: one UNet predicts the noise and, by its encoder, all of them."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from methods.base import Batch, Method, Unsupported
from methods.diffusion.attributes import AttributeGuidance, NamedAttribute, attribute_accuracy, attributes_of
from methods.diffusion.denoiser import Denoiser, EpsDenoiser
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.samplers import Sampler
from methods.networks.joint_head import JointHead
from methods.networks.unet import UNet, pool


class JointAttributeClassifier(NamedAttribute):
    """``p(a_k | x_t)`` by a head on the pooled features of a denoiser's network.

    Args:
        network: UNet with ``encode``.
        head: ``(pooled features, t) -> logits (B, A)``.
        process: Noise process whose images it classifies.
        named: See ``NamedAttribute``.
        count: Likewise.
    """

    def __init__(self, network: UNet, head: nn.Module, process: NoiseProcess, named: int, count: int) -> None:
        super().__init__(named, count)
        self.network, self.head, self.process = network, head, process

    def features(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Pooled features of the middle and of every skip, ``(B, D)``."""
        skips, middle, _ = self.network.encode(x_t, self.process.log_sigma(t))
        return pool(skips, middle)

    def attribute_logits(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.head(self.features(x_t, t), t)

    def of_maps(self, skips: Sequence[Tensor], middle: Tensor, t: Tensor) -> Tensor:
        """Logits ``(B, 2)`` of the named attribute from the maps that ``network.encode`` returned."""
        return self.of_named(self.head(pool(skips, middle), t))


class JointAttributes(Method):
    """``E[(eps_hat - eps)^2] + w_clean BCE(x, t = 0) + w_noisy BCE(x_t, t)``, encoder shared.

    ``BCE`` is the binary cross-entropy, mean over attributes and images. The two of a step pass the head as one batch.
    Labels are codes, see ``attributes_of``. Samples are asked for by classes of the named attribute, or by all.

    Source: (e) Eq. 10; CelebA of its Table 2. The text states no loss for the 40 attributes: this one is ours.

    Args:
        network: UNet without classes.
        process: Noise process.
        attributes: Number of attributes ``A``.
        named: Number of the attribute that is the class of the data module's task.
        clean_weight: ``w_clean``.
        noisy_weight: ``w_noisy``; 0 is the paper's first objective.
        head_dropout: Share dropped before each linear layer of the head.
        sampler: See ``Method``.
        guidance_rule: ``(denoiser, classifier, scale) -> denoiser`` with a ``scale``.
        guidance_scale: See ``Method``.
        augmentation: Changes at random, in training, the images of the clean term, and no others.
    """

    def __init__(
        self,
        network: UNet,
        process: NoiseProcess,
        attributes: PositiveInt,
        named: NonNegativeInt,
        clean_weight: NonNegativeFloat = 0.001,
        noisy_weight: NonNegativeFloat = 0.001,
        head_dropout: ClosedUnitInterval = 0.7,
        sampler: Sampler | None = None,
        guidance_rule: Callable[[Denoiser, nn.Module, float], Denoiser] = AttributeGuidance,
        guidance_scale: float = 1.0,
        augmentation: nn.Module | None = None,
    ) -> None:
        head = JointHead(network.pooled_channels, attributes, head_dropout)
        classifier = JointAttributeClassifier(network, head, process, named, attributes)
        super().__init__(EpsDenoiser(network, process), classifier, sampler, None, guidance_scale)
        self.clean_weight, self.noisy_weight, self.augmentation = clean_weight, noisy_weight, augmentation
        self.clean_time = process.t_min
        # Past nn.Module's registration: guidance has no weights of its own, and checkpoints are the same for any rule.
        self.__dict__["guided"] = guidance_rule(self.denoiser, classifier, guidance_scale)

    @property
    def noisy_process(self) -> NoiseProcess | None:
        return self.denoiser.process if self.noisy_weight else None

    def guidance(self) -> Denoiser:
        if self.guidance_scale == 0:
            return self.denoiser
        if not self.noisy_weight:
            raise Unsupported("its classifier has seen clean images only; train with noisy_weight > 0")
        self.guided.scale = self.guidance_scale
        return self.guided

    def on_train_start(self) -> None:
        """See whether the data have these attributes."""
        data = self.trainer.datamodule
        self.classifier.check(data.attribute_names, data.data_task)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, code = batch["labeled"]
        process, network, n = self.denoiser.process, self.denoiser.network, len(x)
        clean = self.augmentation(x) if self.training and self.augmentation is not None else x
        t = process.sample_times(n, x.device)
        x_t, eps = process.perturb(x, t)
        times = torch.cat([t, t.new_full((n,), self.clean_time)])
        skips, middle, emb = network.encode(torch.cat([x_t, clean]), process.log_sigma(times))
        eps_hat = network.decode([h[:n] for h in skips], middle[:n], emb[:n])
        first = 0 if self.noisy_weight else n
        logits = self.classifier.head(pool(skips, middle)[first:], times[first:])
        attributes = attributes_of(code, self.classifier.count).to(logits.dtype)
        terms = {
            "denoise": F.mse_loss(eps_hat, eps),
            "classify": self.clean_weight * F.binary_cross_entropy_with_logits(logits[-n:], attributes),
        }
        if self.noisy_weight:
            noisy = F.binary_cross_entropy_with_logits(logits[:n], attributes)
            terms["classify_noisy"] = self.noisy_weight * noisy
        return terms

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss and its terms, and the mean ``accuracy`` over all attributes of clean images."""
        x, code = batch["labeled"]
        terms = {name: term.detach() for name, term in self.losses(batch).items()}
        logits = self.classifier.attribute_logits(x, x.new_full((len(x),), self.clean_time))
        accuracy = attribute_accuracy(logits, attributes_of(code, self.classifier.count))
        return {"loss": torch.stack(list(terms.values())).sum(), **terms, "accuracy": accuracy}

    test_step = validation_step
