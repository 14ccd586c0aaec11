"""Published weights into our networks: names of layers tell whose they are, and each is handed over to its place."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from methods.networks.ddpm_unet import DDPMUNet
from methods.networks.encoder_classifier import EncoderClassifier
from methods.networks.joint_head import JointHead
from methods.networks.level_network import LevelNetwork
from methods.networks.ncsnpp import NCSNpp
from methods.networks.published.choice import Weights, published_weights
from methods.networks.published.ddpm import from_cdm, from_pytorch_diffusion
from methods.networks.published.diffusers import check_config, file_of_folder, from_diffusers
from methods.networks.published.guided import from_guided_classifier, from_guided_diffusion, from_joint_diffusion
from methods.networks.published.known import find
from methods.networks.published.ncsnpp import from_score_sde
from methods.networks.steps import GuidedStepEmbedding
from methods.networks.unet import UNet


class JointNetwork(nn.Module):
    """Network and head of a joint diffusion model as one module."""

    def __init__(self, unet: UNet, head: JointHead) -> None:
        super().__init__()
        self.unet, self.head = unet, head

    @property
    def noise(self) -> nn.Module:
        """Embedding of the noise level."""
        return self.unet.noise


@dataclass(frozen=True)
class Format:
    """A published naming of layers.

    Attributes:
        of: What has these names, for messages.
        telling: A name that no format after this one in ``FORMATS`` has.
        network: Our network that takes the weights.
        convert: ``(weights, network) -> weights`` under our names.
        noise: How the network must be told the noise level, which the shapes of its weights do not tell.
    """

    of: str
    telling: str
    network: type[nn.Module]
    convert: Callable[[Weights, Any], Weights]
    noise: type[nn.Module] | None = None


def _joint(weights: Weights, network: JointNetwork) -> Weights:
    parts = zip(("unet", "head"), from_joint_diffusion(weights), strict=True)
    return {f"{part}.{name}": value for part, found in parts for name, value in found.items()}


def _trained_joint(weights: Weights) -> Weights:
    """Weights of a checkpoint of ours, in which the classifier's network is the denoiser's under a second name."""
    parts = {"denoiser.network.": "unet.", "classifier.head.": "head."}
    of_part = ((name, place) for name in weights for place in parts if name.startswith(place))
    return {parts[place] + name.removeprefix(place): weights[name] for name, place in of_part}


def _classifier(weights: Weights, network: EncoderClassifier) -> Weights:
    """Weights of one input; convolutions of further inputs keep theirs, which are near zero in a new network."""
    others = {n: v for n, v in network.encoder.stem.state_dict(prefix="encoder.stem.").items() if ".convs.0." not in n}
    return from_guided_classifier(weights, network.blocks, network.head_channels) | others


def _diffusers(weights: Weights, network: DDPMUNet) -> Weights:
    return from_diffusers(weights)


def _guided(weights: Weights, network: UNet) -> Weights:
    """Without the half of the output that predicts variances, where the network has none."""
    found = from_guided_diffusion(weights)
    for part in ("decoder.out.weight", "decoder.out.bias"):
        if len(found[part]) == 2 * network.out_channels:
            found[part] = found[part][: network.out_channels]
    return found


FORMATS = (
    Format("NCSN++ of score_sde", "all_modules.0.W", NCSNpp, lambda weights, _: from_score_sde(weights)),
    Format("a CDM", "linear_layer.weight", LevelNetwork, lambda weights, _: from_cdm(weights)),
    Format("a joint diffusion model", "clasifier.fc_1.weight", JointNetwork, _joint, GuidedStepEmbedding),
    Format(
        "a joint diffusion model trained here",
        "classifier.head.logits.weight",
        JointNetwork,
        lambda weights, _: _trained_joint(weights),
    ),
    Format("a guided-diffusion classifier", "out.2.c_proj.weight", EncoderClassifier, _classifier, GuidedStepEmbedding),
    Format("a guided-diffusion UNet", "output_blocks.0.0.in_layers.0.weight", UNet, _guided, GuidedStepEmbedding),
    Format("diffusers' DDPM", "time_embedding.linear_1.weight", DDPMUNet, _diffusers),
    Format(
        "pytorch_diffusion's DDPM", "temb.dense.0.weight", DDPMUNet, lambda weights, _: from_pytorch_diffusion(weights)
    ),
)


def starting_from(checkpoint: str | None, network: nn.Module) -> Callable[[], None] | None:
    """``load_published``, to be called when the weights are needed; None without a checkpoint."""
    return None if checkpoint is None else partial(load_published, network, checkpoint)


def load_published(network: nn.Module, checkpoint: str) -> None:
    """Put published weights into a network of the same shape; averaged ones, where the file has them.

    Shapes do not tell everything: the number of heads, the unit of ``sigma`` and the noise process must be those of the
    published network too.

    Args:
        network: Of one of the classes in ``FORMATS``.
        checkpoint: File, folder of a ``UNet2DModel`` or of a pipeline of diffusers that has one, or a name in
            ``known.KNOWN``. Of a pickled file nothing but tensors is read.

    Raises:
        FileNotFoundError: If there is no such file.
        ConnectionError: If a named checkpoint cannot be downloaded.
        ValueError: Naming the file, if it cannot be read, is none of the formats, or does not fit the network.
    """
    path = find(checkpoint)
    if path.is_dir():
        path = file_of_folder(path)
    weights = published_weights(path)
    try:
        network.load_state_dict(_fitting(_converted(weights, network, path), network))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _converted(state: Weights, network: nn.Module, path: Path) -> Weights:
    """The weights of a file under our names."""
    form = next((form for form in FORMATS if form.telling in state), None)
    if form is None:
        known = ", ".join(form.of for form in FORMATS)
        raise ValueError(f"holds weights of an unknown network; known are those of {known}")
    if not isinstance(network, form.network):
        raise ValueError(
            f"holds the weights of {form.of}, which fit {form.network.__name__}, not {type(network).__name__}"
        )
    if form.noise is not None and type(network.noise) is not form.noise:
        raise ValueError(
            f"the network of {form.of} is told the noise level by {form.noise.__name__}, "
            f"not {type(network.noise).__name__}; set its key 'noise'"
        )
    if form.convert is _diffusers:
        check_config(path.with_name("config.json"))
    return form.convert(state, network)


def _fitting(weights: Weights, network: nn.Module) -> Weights:
    """The weights themselves, if the network has just these, in these shapes."""
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    differing = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    if differing:
        name, kind = differing[0], type(network).__name__
        raise ValueError(
            f"does not fit the {kind} given: {len(differing)} of {len(wanted)} weights differ, the first is {name}, "
            f"{found.get(name, 'missing')} in the file and {wanted.get(name, 'missing')} in the network"
        )
    return weights
