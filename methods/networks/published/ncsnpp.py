"""Weights of NCSN++ as the code of Song et al. 2021 names them, ``all_modules.0`` and so on in the order of use."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from methods.networks.published.reader import PARTS, Reader

UNTRAINED = ("sigmas", "all_modules.0.W")
"""Entries of the published state that are no trained parameters, and have no average."""


def from_score_sde(state: Mapping[str, Tensor], averages: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
    """Weights of ``NCSNpp`` from those of the published one, with 4 blocks a level or with 8 (deep).

    It must be one of continuous time with residual progressive input and no progressive output, as for CIFAR-10. It
    does not read the noise levels ``sigmas``, which are left out. It answers ``score * sigma = -eps`` before its
    division by ``sigma``: the last convolution changes its sign.

    Source: github.com/yang-song/score_sde_pytorch.

    Args:
        state: ``model`` of a checkpoint.
        averages: ``shadow_params`` of ``ema`` in it, which the published samples are made with: one for each trained
            parameter, in the order of ``state``. They take the place of the parameters.

    Raises:
        ValueError: If a weight or an average is missing, or a name is none of such a network.
    """
    reader = Modules(state, "a continuous NCSN++ with residual input")
    if averages is not None:
        reader.left = with_averages(reader.left, averages)
    reader.left.pop("sigmas", None)
    levels = 1 + reader.count_with("Conv2d_0")
    blocks = (reader.count_with("Conv_1") - 3 * levels) // (2 * levels)

    reader.found["noise.frequencies"] = reader.take(f"{reader.next()}.W")
    reader.layer(reader.next(), "noise.layers.0")
    reader.layer(reader.next(), "noise.layers.2")
    reader.layer(reader.next(), "encoder.stem.convs.0")
    for level in range(levels):
        for i in range(blocks):
            reader.residual(f"encoder.levels.{level}.{i}.block")
            reader.attention(f"encoder.levels.{level}.{i}.attend")
        if level < levels - 1:
            reader.residual(f"encoder.downs.{level}", resampled=True)
            reader.layer(f"{reader.next()}.Conv2d_0", f"encoder.pyramid.{level}.conv")
    reader.residual("encoder.middle.0.block")
    reader.attention("encoder.middle.0.attend")
    reader.residual("encoder.middle.1.block")
    for level in range(levels):
        for i in range(blocks + 1):
            reader.residual(f"decoder.levels.{level}.{i}.block")
        reader.attention(f"decoder.levels.{level}.{blocks}.attend")
        if level < levels - 1:
            reader.residual(f"decoder.ups.{level}", resampled=True)
    reader.layer(reader.next(), "decoder.norm.norm")
    reader.layer(reader.next(), "decoder.out")
    for part in PARTS:
        reader.found[f"decoder.out.{part}"] = -reader.found[f"decoder.out.{part}"]
    return reader.close()


def with_averages(state: Mapping[str, Tensor], averages: Sequence[Tensor]) -> dict[str, Tensor]:
    """The state with averages in the place of its trained parameters.

    Raises:
        ValueError: If they are not as many, or of other shapes.
    """
    names = [name for name in state if name not in UNTRAINED]
    for name, average in zip(names, averages, strict=False):
        if average.shape != state[name].shape:
            raise ValueError(f"{name} has shape {tuple(state[name].shape)}, and its average {tuple(average.shape)}")
    if len(averages) < len(names):
        raise ValueError(f"{names[len(averages)]} has no average: {len(averages)} for {len(names)} parameters")
    if len(averages) > len(names):
        raise ValueError(f"{names[-1]} is the last of {len(names)} parameters, for which {len(averages)} averages came")
    return {**state, **dict(zip(names, averages, strict=True))}


class Modules(Reader):
    """A reader that goes through ``all_modules`` in order."""

    at = 0

    def count_with(self, layer: str) -> int:
        """Number of modules with such a layer, from which the shape of the network follows."""
        return len({name.split(".")[1] for name in self.left if f".{layer}." in name})

    def next(self) -> str:
        """Name of the module at hand; the one after it is next."""
        self.at += 1
        return f"all_modules.{self.at - 1}"

    def residual(self, ours: str, resampled: bool = False) -> None:
        theirs = self.next()
        self.layer(f"{theirs}.GroupNorm_0", f"{ours}.norm_in.norm")
        self.layer(f"{theirs}.Conv_0", f"{ours}.conv_in")
        self.layer(f"{theirs}.Dense_0", f"{ours}.noise")
        self.layer(f"{theirs}.GroupNorm_1", f"{ours}.norm_out.norm")
        self.layer(f"{theirs}.Conv_1", f"{ours}.conv_out")
        channels, in_channels = self.found[f"{ours}.conv_in.weight"].shape[:2]
        if resampled or channels != in_channels:
            self.layer(f"{theirs}.Conv_2", f"{ours}.skip")

    def attention(self, ours: str) -> None:
        """Read an attention block if it comes next."""
        if f"all_modules.{self.at}.NIN_0" not in self:
            return
        theirs = self.next()
        self.layer(f"{theirs}.GroupNorm_0", f"{ours}.norm")
        weights, biases = ([self.take(f"{theirs}.NIN_{i}.{part}") for i in range(4)] for part in "Wb")
        weights = [weight.mT[..., None, None] for weight in weights]  # theirs map rows
        for name, part in (("qkv", slice(3)), ("proj", slice(3, None))):
            self.found[f"{ours}.{name}.weight"] = torch.cat(weights[part])
            self.found[f"{ours}.{name}.bias"] = torch.cat(biases[part])
