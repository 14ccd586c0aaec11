"""Weights of the UNet of DDPM as its ports to torch name them, and of (c), which builds on one of them."""

from collections.abc import Mapping

from torch import Tensor

from methods.networks.published.reader import Reader


def from_pytorch_diffusion(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``DDPMUNet`` from those of the UNet of github.com/pesser/pytorch_diffusion, or of DDIM's code.

    These are the weights of Ho et al. 2020, by level: ``down.0.block.0.norm1.weight``. They need a ``width`` of 128 or
    more: the published group norms have 32 groups.

    Raises:
        ValueError: If a weight is missing, or a name is none of such a network.
    """
    reader = Reader(state, "the UNet of DDPM")
    reader.layer("temb.dense.0", "noise.layers.0")
    reader.layer("temb.dense.1", "noise.layers.2")
    _unet(reader, told=True)
    return reader.close()


def from_cdm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``LevelNetwork(UNetTrunk(...))`` from those of (c), ``ema_model_state_dict`` in its checkpoints.

    The trunk has ``out_channels`` twice ``width`` there, and where it has labels, the last one stands for none, as
    here. Both sum the logits over the levels, level 0 first.

    Source: code of (c), github.com/shaharYadin/CDM.

    Raises:
        ValueError: If a weight is missing, or a name is none of such a network.
    """
    reader = Reader(state, "a classification diffusion model")
    if told := "label_emb" in reader:
        reader.layer("label_emb", "trunk.label.table", ["weight"])
        reader.layer("temb.dense.0", "trunk.label.layers.0")
        reader.layer("temb.dense.1", "trunk.label.layers.2")
    _unet(reader, told, "trunk.")
    reader.layer("linear_layer", "head")
    return reader.close()


def _unet(reader: Reader, told: bool, ours: str = "") -> None:
    """Weights under ``ours``, all but those of the embedding, which residual blocks are ``told`` or not."""
    levels, blocks = reader.count("down"), reader.count("down.0.block")
    attends = [any(f"{part}.{level}.attn" in reader for part in ("down", "up")) for level in range(levels)]
    reader.layer("conv_in", f"{ours}encoder.stem.convs.0")
    for level in range(levels):
        first = level * (blocks + 1)
        for i in range(blocks):
            stage = f"{ours}encoder.stages.{first + i}"
            _residual(reader, f"down.{level}.block.{i}", f"{stage}.block", told)
            if attends[level]:
                _attention(reader, f"down.{level}.attn.{i}", f"{stage}.attend")
        if level < levels - 1:
            reader.layer(f"down.{level}.downsample.conv", f"{ours}encoder.stages.{first + blocks}")

    _residual(reader, "mid.block_1", f"{ours}encoder.middle.0.block", told)
    _attention(reader, "mid.attn_1", f"{ours}encoder.middle.0.attend")
    _residual(reader, "mid.block_2", f"{ours}encoder.middle.1.block", told)

    for depth, level in enumerate(reversed(range(levels))):  # theirs count from the top, ours from the middle
        for i in range(blocks + 1):
            stage = f"{ours}decoder.levels.{depth}.{i}"
            _residual(reader, f"up.{level}.block.{i}", f"{stage}.block", told)
            if attends[level]:
                _attention(reader, f"up.{level}.attn.{i}", f"{stage}.attend")
        if level:
            reader.layer(f"up.{level}.upsample.conv", f"{ours}decoder.ups.{depth}")
    reader.norm("norm_out", f"{ours}decoder.norm.norm")
    reader.layer("conv_out", f"{ours}decoder.out")


def _residual(reader: Reader, theirs: str, ours: str, told: bool) -> None:
    reader.norm(f"{theirs}.norm1", f"{ours}.norm_in.norm")
    reader.layer(f"{theirs}.conv1", f"{ours}.conv_in")
    if told:
        reader.layer(f"{theirs}.temb_proj", f"{ours}.emb")
    reader.norm(f"{theirs}.norm2", f"{ours}.norm_out.norm")
    reader.layer(f"{theirs}.conv2", f"{ours}.conv_out")
    channels, in_channels = reader.found[f"{ours}.conv_in.weight"].shape[:2]
    if channels != in_channels:
        reader.layer(f"{theirs}.nin_shortcut", f"{ours}.skip")


def _attention(reader: Reader, theirs: str, ours: str) -> None:
    reader.norm(f"{theirs}.norm", f"{ours}.norm")
    reader.qkv(theirs, f"{ours}.qkv", ["q", "k", "v"])
    reader.conv(f"{theirs}.proj_out", f"{ours}.proj")
