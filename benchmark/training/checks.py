"""Checks of a method against its data, and what its steps may leave out."""

import math
from typing import Any, Protocol, runtime_checkable

import torch

from benchmark.errors import InputError
from benchmark.system.memory import physical_memory
from datamodules.base import ImageData
from methods.base import Method


@runtime_checkable
class BuffersLabels(Protocol):
    """A method whose labels wait until they are as many as the images of a batch with unlabeled ones.

    A forecast counts the steps in which they wait apart.
    """

    def buffer_labels(self, batch: dict[str, Any]) -> None:
        """Take in the labels of such a step, and compute nothing."""


def check_shapes(method: Method, data: ImageData) -> None:
    """Check on two grey images that a method accepts the data's images and has its classes.

    Raises:
        InputError: If they do not match, or a batch does not fit into memory.
    """
    for key in ("batch_size", "unlabeled_batch_size"):
        size = getattr(data, key) * 4 * math.prod(data.shape)
        if size > physical_memory():
            raise InputError(
                f"data.init_args.{key}: {getattr(data, key)} images take {size / 2**30:.3g} GiB, "
                f"this machine has {physical_memory() / 2**30:.3g}; choose a smaller one"
            )
    x, name = torch.zeros(2, *data.shape), type(method).__name__
    training = method.training
    try:
        if "classify" not in method.unsupported:
            classes = method.eval().classify(x).shape[1]
            if classes != data.classes:
                raise InputError(f"{name} tells {classes} classes apart, the task of {data.name} has {data.classes}")
        elif method.denoiser is not None:
            method.eval().denoiser(x, x.new_full((len(x),), 0.5))
    except RuntimeError as error:
        shape = "x".join(map(str, data.shape))
        raise InputError(f"{name} does not take the {shape} images of {data.name}: {error}") from error
    finally:
        method.train(training)
