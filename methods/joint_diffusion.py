"""Joint diffusion: one UNet predicts the noise and, by its encoder's pooled features, the class."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from methods.base import Batch, Method, Unsupported
from methods.diffusion.denoiser import Denoiser, EpsDenoiser
from methods.diffusion.guidance import ClassifierGuidance
from methods.diffusion.likelihood import Likelihood
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.samplers import Sampler
from methods.networks.joint_head import JointHead
from methods.networks.published.load import JointNetwork, starting_from
from methods.networks.unet import UNet, pool


class JointClassifier(nn.Module):
    """``p(y | x_t)`` by a head on the pooled features of a denoiser's network.

    Args:
        network: UNet with ``encode``.
        head: ``(pooled features, t) -> logits``.
        process: Noise process whose images it classifies.
    """

    def __init__(self, network: UNet, head: nn.Module, process: NoiseProcess) -> None:
        super().__init__()
        self.network, self.head, self.process = network, head, process

    def features(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Pooled features of the middle and of every skip, ``(B, D)``: the representation of (e)."""
        skips, middle, _ = self.network.encode(x_t, self.process.log_sigma(t))
        return pool(skips, middle)

    def of_maps(self, skips: Sequence[Tensor], middle: Tensor, t: Tensor) -> Tensor:
        """Logits ``(B, K)`` from the maps that ``network.encode`` returned."""
        return self.head(pool(skips, middle), t)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        return self.head(self.features(x_t, t), t)


class LabeledBuffer:
    """Labeled images that wait until there are enough of them for a step of the classifier.

    They are kept as images: features are made with the weights of the step that uses them. Source: (e), official code.
    """

    def __init__(self, parts: Sequence[tuple[Tensor, Tensor]] = ()) -> None:
        self.parts = list(parts)

    def __len__(self) -> int:
        return sum(len(y) for _, y in self.parts)

    def admit(self, x: Tensor, y: Tensor, enough: int) -> tuple[Tensor, Tensor] | None:
        """Add images; once there are ``enough``, empty the buffer and return all of them, the new ones first."""
        if not self.parts and len(y) >= enough:
            return x, y
        self.parts = [(x, y), *self.parts]
        if len(self) < enough:
            return None
        ready, self.parts = self.contents(x.device), []
        return ready

    def contents(self, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Images and labels, the newest batch first."""
        x, y = zip(*self.parts, strict=True)
        return torch.cat([v.to(device) for v in x]), torch.cat([v.to(device) for v in y])


class JointDiffusion(Method):
    """``E[(eps_hat - eps)^2] + w_clean CE(x, t = 0) + w_noisy CE(x_t, t)``, encoder shared.

    The squared error is a mean over pixels and is taken on all images, labeled or not. Clean images are told the first
    noise level, as in the code. Labeled images wait in a buffer until there are as many as images in a batch; the
    cross-entropies, and the head's gradients, are 0 in the steps between, so that the optimiser's momentum goes on. A
    batch of labeled images alone never waits. Evaluation leaves the buffer alone. Each shard of a step, be it another
    device's or another accumulated batch, has a buffer of its own.

    Without the noisy term the head has only seen clean images: there is no classifier of noisy ones and no guidance.
    Without both it is left as it starts, and the encoder learns by the squared error alone: the second of the two
    trainings by which (e) Table 6 adapts to images of another domain, whose labels are not looked at.

    Source: (e) Sec. 5.1 and Eq. 10. The code has the noisy cross-entropy replace the clean one; here they add up, as in
    the paper, and pass the head as one batch, so that its batch norms see in training the mixture that they answer for.

    Args:
        network: UNet without classes.
        process: Noise process.
        classes: Number of classes ``K``.
        clean_weight: ``w_clean``; 1 over the number of pixels is the paper's sum over pixels without weights, 0 has
            the noisy term alone, as in the code.
        noisy_weight: ``w_noisy``; 0 is the paper's first objective.
        head_dropout: Share dropped before each linear layer of the head.
        sampler: See ``Method``.
        likelihood: See ``Method``.
        guidance_rule: ``(denoiser, classifier, scale) -> denoiser`` with a ``scale``: how labels steer sampling.
            Training and weights do not depend on it.
        guidance_scale: See ``Method``; times ``step`` it is the step size of ``FeatureGuidance``.
        augmentation: Changes at random, in training, the images of the cross-entropy of clean images, and no others.
        checkpoint: Weights of network and head to start from, published or of a checkpoint of this method, see
            ``load_published``.
    """

    def __init__(
        self,
        network: UNet,
        process: NoiseProcess,
        classes: PositiveInt,
        clean_weight: NonNegativeFloat = 0.001,
        noisy_weight: NonNegativeFloat = 0.001,
        head_dropout: ClosedUnitInterval = 0.7,
        sampler: Sampler | None = None,
        likelihood: Callable[[Denoiser], Likelihood] | None = None,
        guidance_rule: Callable[[Denoiser, nn.Module, float], Denoiser] = ClassifierGuidance,
        guidance_scale: float = 1.0,
        augmentation: nn.Module | None = None,
        checkpoint: str | None = None,
    ) -> None:
        head = JointHead(network.pooled_channels, classes, head_dropout)
        super().__init__(
            EpsDenoiser(network, process),
            JointClassifier(network, head, process),
            sampler,
            likelihood,
            guidance_scale,
            start=starting_from(checkpoint, JointNetwork(network, head)),
        )
        self.clean_weight, self.noisy_weight, self.augmentation = clean_weight, noisy_weight, augmentation
        self.clean_time = process.t_min
        head.requires_grad_(self._supervised)
        self._waiting: dict[int, LabeledBuffer] = {}
        self._micro = 0
        # Past nn.Module's registration: guidance has no weights of its own, and checkpoints are the same for any rule.
        self.__dict__["guided"] = guidance_rule(self.denoiser, self.classifier, guidance_scale)

    @property
    def _supervised(self) -> bool:
        return self.clean_weight > 0 or self.noisy_weight > 0

    @property
    def waiting(self) -> LabeledBuffer:
        """The buffer of this device and of the current one of its accumulated batches."""
        return self._waiting.setdefault(self._micro, LabeledBuffer())

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

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["labeled"]
        images = torch.cat([x, batch["unlabeled"]]) if "unlabeled" in batch else x
        if not self._supervised:
            t = self.denoiser.process.sample_times(len(images), x.device)
            return {"denoise": self.denoiser.matching_loss(images, t, torch.randn_like(images)).mean()}
        ready = self.waiting.admit(x, y, len(images)) if self.training else (x, y)
        clean, y = (x[:0], y[:0]) if ready is None else ready
        waited = clean[len(x) :] if self.noisy_weight else x[:0]
        if self.training and self.augmentation is not None and ready is not None:
            clean = self.augmentation(clean)

        # One pass of the encoder, over noisy images, noisy images that waited, and clean ones; the first are decoded.
        process, network, n = self.denoiser.process, self.denoiser.network, len(images)
        t = process.sample_times(n + len(waited), x.device)
        x_t, eps = process.perturb(torch.cat([images, waited]), t)
        times = torch.cat([t, t.new_full((len(clean),), self.clean_time)])
        skips, middle, emb = network.encode(torch.cat([x_t, clean]), process.log_sigma(times))
        eps_hat = network.decode([h[:n] for h in skips], middle[:n], emb[:n])
        terms = {"denoise": F.mse_loss(eps_hat, eps[:n])}
        if ready is None:
            nothing = 0.0 * sum(weight.sum() for weight in self.classifier.head.parameters())
            return terms | dict.fromkeys(
                ("classify", "classify_noisy") if self.noisy_weight else ("classify",), nothing
            )

        new = len(x) if self.noisy_weight else 0  # labeled images come first in `images`, and new ones in `clean`
        logits = self.classifier.head(*(torch.cat([v[:new], v[n:]]) for v in (pool(skips, middle), times)))
        terms["classify"] = self.clean_weight * F.cross_entropy(logits[-len(y) :], y)
        if self.noisy_weight:
            terms["classify_noisy"] = self.noisy_weight * F.cross_entropy(logits[: len(y)], y)
        return terms

    def buffer_labels(self, batch: Batch) -> None:
        """Take in the labels of a step in which they wait, and compute nothing."""
        if self._supervised:
            x, y = batch["labeled"]
            self.waiting.admit(x, y, len(x) + len(batch.get("unlabeled", ())))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        self._micro = batch_idx % self.trainer.accumulate_grad_batches
        return super().training_step(batch, batch_idx)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if len(self.waiting) and "optimizer_states" in checkpoint:  # weights alone carry no images
            devices = self.trainer.world_size
            parts = zip(*(self._waiting[micro].contents() for micro in sorted(self._waiting)), strict=True)
            gathered = [[self.all_gather(v).view(devices, *v.shape) for v in part] for part in parts]
            checkpoint["waiting"] = [torch.cat(part) for part in gathered]  # (shards, images, ...)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._waiting = {}
        devices, accumulated = self.trainer.world_size, self.trainer.accumulate_grad_batches
        # Dealt out anew where there are now more or fewer shards.
        waiting = [v.reshape(accumulated, devices, -1, *v.shape[2:]) for v in checkpoint.get("waiting", ())]
        for micro in range(accumulated if waiting else 0):
            self._waiting[micro] = LabeledBuffer([tuple(v[micro, self.trainer.global_rank] for v in waiting)])
