"""Hands a published state dict over to our names, layer by layer, and notices what is missing or left over."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from methods.networks.layers import group_norm

PARTS = ("weight", "bias")
BATCH_NORM = (*PARTS, "running_mean", "running_var", "num_batches_tracked")


class Reader:
    """A published state dict of which every entry is to be taken once, and what was taken under our names.

    Args:
        state: Weights by name; names may begin with the ``module.`` of a parallel wrapper.
        network: What they should be the weights of, for messages.
    """

    def __init__(self, state: Mapping[str, Tensor], network: str) -> None:
        self.left = {name.removeprefix("module."): value for name, value in state.items()}
        self.network = network
        self.found: dict[str, Tensor] = {}

    def __contains__(self, place: str) -> bool:
        """Tell whether something at this place, or below it, is left."""
        return any(name == place or name.startswith(f"{place}.") for name in self.left)

    def count(self, place: str) -> int:
        """Number of consecutive entries ``place.0``, ``place.1`` and so on of which something is left."""
        n = 0
        while f"{place}.{n}" in self:
            n += 1
        return n

    def take(self, name: str) -> Tensor:
        """The entry of this name.

        Raises:
            ValueError: If it was not there.
        """
        if name not in self.left:
            raise ValueError(f"{name} is missing from the weights of {self.network}")
        return self.left.pop(name)

    def layer(self, theirs: str, ours: str, parts: Sequence[str] = PARTS) -> None:
        """A layer as it is."""
        for part in parts:
            self.found[f"{ours}.{part}"] = self.take(f"{theirs}.{part}")

    def norm(self, theirs: str, ours: str) -> None:
        """A group norm of 32 groups.

        Raises:
            ValueError: If ours of as many channels has another number of groups.
        """
        self.layer(theirs, ours)
        channels = len(self.found[f"{ours}.weight"])
        if (groups := group_norm(channels).num_groups) != 32:
            raise ValueError(f"{theirs}.weight has {channels} channels in 32 groups, where our norms have {groups}")

    def conv(self, theirs: str, ours: str) -> None:
        """A layer over channels alone, however many pixel dimensions its weight has, as a 1x1 convolution."""
        self.layer(theirs, ours)
        self.found[f"{ours}.weight"] = self.found[f"{ours}.weight"].flatten(1)[..., None, None]

    def qkv(self, theirs: str, ours: str, names: Sequence[str]) -> None:
        """Three such layers as one."""
        for name in names:
            self.conv(f"{theirs}.{name}", f"{ours}.{name}")
        for part in PARTS:
            self.found[f"{ours}.{part}"] = torch.cat([self.found.pop(f"{ours}.{name}.{part}") for name in names])

    def close(self) -> dict[str, Tensor]:
        """Return all weights that were taken.

        Raises:
            ValueError: If something is left.
        """
        if self.left:
            raise ValueError(f"{next(iter(self.left))} is no weight of {self.network}")
        return self.found
