"""Weights of guided diffusion's UNet and classifier, and of (e), whose code extends the former.

Both are told the step, not ``log sigma``: ours must be built with ``noise=GuidedStepEmbedding``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from methods.networks.layers import head_count
from methods.networks.published.reader import BATCH_NORM, PARTS, Reader


def from_guided_diffusion(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``UNet`` from those of ``UNetModel`` of the same shape.

    It must have been built with ``use_scale_shift_norm``, and with a fixed number of heads in the older order of
    attention, which the names do not tell. An output that has variances too needs twice the ``out_channels``. No label
    was none of the published classes: its embedding is zero. Needs a ``width`` of 128 or more: the published group
    norms have 32 groups.

    Source: github.com/openai/guided-diffusion.

    Raises:
        ValueError: If a weight is missing, or a name is none of such a network.
    """
    reader = Reader(state, "the UNet of guided diffusion")
    _unet(reader)
    if "label_emb" in reader:
        table = reader.take("label_emb.weight")
        reader.found["label.weight"] = torch.cat([table, torch.zeros_like(table[:1])])
    return reader.close()


def from_joint_diffusion(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of ``UNet`` and of ``JointHead`` from those of a model of (e).

    What belongs to its augmentations is left out. As ``from_guided_diffusion`` otherwise; the head agrees at ``t = 0``,
    where it was trained: the published unit of time is a step.

    Source: code of (e), github.com/KamilDeja/joint_diffusion.

    Raises:
        ValueError: If a weight is missing, or a name is none of such a model.
    """
    reader = Reader(state, "a joint diffusion model")
    reader.left = {name: value for name, value in reader.left.items() if not name.startswith("augmentation.")}
    _unet(reader)
    unet, reader.found = reader.found, {}
    reader.layer("clasifier.bn_1", "norm_in", BATCH_NORM)  # the spelling is theirs
    reader.layer("clasifier.fc_1", "linear")
    reader.layer("clasifier.bn_2", "norm_out", BATCH_NORM)
    reader.layer("clasifier.fc_2", "logits")
    return unet, reader.close()


def from_guided_classifier(state: Mapping[str, Tensor], blocks: int = 2, head_channels: int = 64) -> dict[str, Tensor]:
    """Weights of ``EncoderClassifier`` from those of ``EncoderUNetModel`` with attention pool.

    ``blocks`` and ``head_channels`` are those of the network. As ``from_guided_diffusion`` otherwise.

    Source: github.com/openai/guided-diffusion.

    Raises:
        ValueError: If a weight is missing, or a name is none of such a network.
    """
    reader = Reader(state, "a classifier of guided diffusion with attention pool")
    _encoder(reader, blocks)
    reader.norm("out.0", "norm.norm")
    reader.found["pool.positions"] = reader.take("out.2.positional_embedding").mT
    reader.layer("out.2.qkv_proj", "pool.qkv")
    reader.layer("out.2.c_proj", "head")
    for name in ("pool.qkv", "head"):
        reader.found[f"{name}.weight"] = reader.found[f"{name}.weight"].flatten(1)
    heads = head_count(len(reader.found["norm.norm.weight"]), head_channels)
    for part in PARTS:  # the pool has the newer order, in which q, k, v come before heads
        value = reader.found[f"pool.qkv.{part}"]
        reader.found[f"pool.qkv.{part}"] = value.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)
    return reader.close()


def _unet(reader: Reader) -> None:
    """Embedding, encoder and decoder; the first block with a doubling in it ends a level, hence tells their length."""
    outputs = reader.count("output_blocks")
    blocks = next((i for i in range(outputs) if _doubling(reader, i)), max(outputs - 1, 0))
    levels = _encoder(reader, blocks)
    for level in range(levels):
        names = [f"output_blocks.{level * (blocks + 1) + i}" for i in range(blocks + 1)]
        attends = any(f"{name}.1.qkv" in reader for name in names)
        for i, name in enumerate(names):
            _stage(reader, name, f"decoder.levels.{level}.{i}", attends)
        if level < levels - 1:
            _resampling(reader, f"{names[-1]}.{1 + attends}", "conv", f"decoder.ups.{level}")
    reader.norm("out.0", "decoder.norm.norm")
    reader.layer("out.2", "decoder.out")


def _doubling(reader: Reader, output: int) -> bool:
    return any(f"output_blocks.{output}.{i}.{layer}" in reader for i in (1, 2) for layer in ("conv", "in_layers"))


def _encoder(reader: Reader, blocks: int) -> int:
    """Embedding, encoder and middle; answers the number of levels."""
    reader.layer("time_embed.0", "noise.layers.0")
    cos, sin = reader.found["noise.layers.0.weight"].chunk(2, dim=1)
    reader.found["noise.layers.0.weight"] = torch.cat([sin, cos], dim=1)
    reader.layer("time_embed.2", "noise.layers.2")
    levels = reader.count("input_blocks") // (blocks + 1)
    reader.layer("input_blocks.0.0", "encoder.stem.convs.0")
    for level in range(levels):
        first = level * (blocks + 1)
        attends = any(f"input_blocks.{first + i}.1" in reader for i in range(1, blocks + 1))
        for i in range(blocks):
            _stage(reader, f"input_blocks.{first + i + 1}", f"encoder.stages.{first + i}", attends)
        if level < levels - 1:
            _resampling(reader, f"input_blocks.{first + blocks + 1}.0", "op", f"encoder.stages.{first + blocks}")
    _residual(reader, "middle_block.0", "encoder.middle.0.block")
    _attention(reader, "middle_block.1", "encoder.middle.0.attend")
    _residual(reader, "middle_block.2", "encoder.middle.1.block")
    return levels


def _stage(reader: Reader, theirs: str, ours: str, attends: bool) -> None:
    _residual(reader, f"{theirs}.0", f"{ours}.block")
    if attends:
        _attention(reader, f"{theirs}.1", f"{ours}.attend")


def _resampling(reader: Reader, theirs: str, conv: str, ours: str) -> None:
    """A residual block, or else a convolution of that name."""
    if f"{theirs}.in_layers" in reader:
        _residual(reader, theirs, ours)
    else:
        reader.layer(f"{theirs}.{conv}", ours)


def _residual(reader: Reader, theirs: str, ours: str) -> None:
    reader.norm(f"{theirs}.in_layers.0", f"{ours}.norm_in.norm")
    reader.layer(f"{theirs}.in_layers.2", f"{ours}.conv_in")
    reader.layer(f"{theirs}.emb_layers.1", f"{ours}.film")
    reader.norm(f"{theirs}.out_layers.0", f"{ours}.norm_out.norm")
    reader.layer(f"{theirs}.out_layers.3", f"{ours}.conv_out")
    channels, in_channels = reader.found[f"{ours}.conv_in.weight"].shape[:2]
    if channels != in_channels:
        reader.layer(f"{theirs}.skip_connection", f"{ours}.skip")


def _attention(reader: Reader, theirs: str, ours: str) -> None:
    reader.norm(f"{theirs}.norm", f"{ours}.norm")
    reader.conv(f"{theirs}.qkv", f"{ours}.qkv")
    reader.conv(f"{theirs}.proj_out", f"{ours}.proj")
