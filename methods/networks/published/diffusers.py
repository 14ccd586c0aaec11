"""Weights of the UNet of DDPM under the names of diffusers, and the folders that it saves them in."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

LAYERS = {
    "norm1": "block.norm_in.norm",
    "conv1": "block.conv_in",
    "time_emb_proj": "block.emb",
    "norm2": "block.norm_out.norm",
    "conv2": "block.conv_out",
    "conv_shortcut": "block.skip",
    "group_norm": "attend.norm",
    "qkv": "attend.qkv",
    "to_out.0": "attend.proj",
    "conv": "",
}
OUTSIDE = {
    "conv_in": "encoder.stem.convs.0",
    "time_embedding.linear_1": "noise.layers.0",
    "time_embedding.linear_2": "noise.layers.2",
    "conv_norm_out": "decoder.norm.norm",
    "conv_out": "decoder.out",
}
OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the layers of attention in early versions of diffusers, which published checkpoints still have."""

PLACES = ("unet_ema", "unet", ".")
"""Folders with the network, below that of a pipeline or the network itself; averages come first."""
FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
BUILT = {
    "_class_name": "UNet2DModel",
    "act_fn": "silu",
    "attention_head_dim": None,
    "center_input_sample": False,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
}
"""Settings of ``config.json`` that ``DDPMUNet`` answers to, as those of google/ddpm-cifar10-32; shapes do not tell."""
LARGEST_CONFIG = 2**20
"""Bytes of the largest ``config.json`` that is read."""


def file_of_folder(folder: Path) -> Path:
    """The file of weights in a folder that diffusers saved.

    Raises:
        FileNotFoundError: If there is none.
    """
    candidates = (folder / place / file for place in PLACES for file in FILES)
    found = next(filter(Path.is_file, candidates), None)
    if found is None:
        raise FileNotFoundError(f"no {' or '.join(FILES)} in {folder} or its folder unet; name a file of weights")
    return found


def check_config(path: Path) -> None:
    """See that the network of a ``config.json``, where it lies beside the weights, computes what ``DDPMUNet`` does.

    Raises:
        ValueError: Naming a setting that differs, or if it cannot be read.
    """
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(LARGEST_CONFIG))
        differing = [key for key, value in BUILT.items() if key in config and config[key] != value]
    except (ValueError, TypeError, RecursionError):
        raise ValueError("has a config.json beside it that cannot be read; copy it anew, or remove it") from None
    if differing:
        key = differing[0]
        raise ValueError(
            f"is of a network with {key} {str(config[key])[:60]!r} by its config.json, DDPMUNet has {BUILT[key]!r}"
        )


def from_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``DDPMUNet`` from those of ``UNet2DModel`` of the same shape, such as google/ddpm-cifar10-32.

    Raises:
        ValueError: If a name is none of such a network.
    """
    state = {re.sub("|".join(rf"\b{old}\b" for old in OLDER), lambda m: OLDER[m[0]], k): v for k, v in state.items()}
    for name in [name for name in state if ".to_q." in name]:
        parts = [state.pop(name.replace("to_q", part)) for part in ("to_q", "to_k", "to_v")]
        qkv = torch.cat(parts)
        state[name.replace("to_q", "qkv")] = qkv[..., None, None] if qkv.dim() == 2 else qkv
    stages = 1 + len({name.split(".")[3] for name in state if name.startswith("down_blocks.0.resnets.")})
    return {_renamed(name, stages): _as_conv(name, value) for name, value in state.items()}


def _as_conv(name: str, value: Tensor) -> Tensor:
    """Matrices of attention as 1x1 convolutions."""
    return value[..., None, None] if "to_out.0.weight" in name and value.dim() == 2 else value


def _renamed(name: str, stages: int) -> str:
    """Our name of a weight; ``stages`` counts those of a level of the encoder, its halving included."""
    layer, _, kind = name.rpartition(".")
    if layer in OUTSIDE:
        return f"{OUTSIDE[layer]}.{kind}"
    found = re.fullmatch(r"(down_blocks|mid_block|up_blocks)(?:\.(\d+))?\.(\w+)\.(\d+)\.(.+)", layer)
    if not found or found[5] not in LAYERS:
        raise ValueError(f"{name} is no weight of a UNet2DModel without class embedding and with plain blocks")
    part, level, kind_of, index, inner = found[1], int(found[2] or 0), found[3], int(found[4]), LAYERS[found[5]]
    if kind_of == "downsamplers":
        place = f"encoder.stages.{level * stages + stages - 1}"
    elif kind_of == "upsamplers":
        place = f"decoder.ups.{level}"
    elif part == "down_blocks":
        place = f"encoder.stages.{level * stages + index}"
    elif part == "mid_block":
        place = f"encoder.middle.{index}"
    else:
        place = f"decoder.levels.{level}.{index}"
    return ".".join(piece for piece in (place, inner, kind) if piece)
