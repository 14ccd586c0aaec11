"""Classifiers of timm, by name: judges of samples that somebody else trained."""

import difflib
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from methods.networks.published.choice import published_weights


class TimmClassifier(nn.Module):
    """A classifier of timm under the interface of a network of clean images, which are in [-1, 1].

    Images are scaled to the size that the classifier was trained on, bicubic, and normalised as it wants them. Weights
    that are timm's own or a file's are read by ``start``, which training calls; until then they are random.

    Args:
        name: Model of timm, such as ``resnet50.a1_in1k``.
        classes: Number of classes ``K``.
        weights: ``published`` for those of timm, which are downloaded once; a file of them, see
            ``published_weights``; none for a network to be trained.

    Raises:
        ValueError: If timm has no such model.
    """

    def __init__(self, name: str, classes: PositiveInt, weights: str | None = None) -> None:
        super().__init__()
        self.name, self.classes = name, classes
        self.weights = weights if weights in (None, "published") else Path(weights).expanduser().absolute()
        if not timm.is_model(name):
            near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=1)
            raise ValueError(f"timm has no model {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
        self.model = timm.create_model(name, num_classes=classes)
        config = self.model.pretrained_cfg
        self.size = config["input_size"][1:]
        for part in ("mean", "std"):
            self.register_buffer(part, torch.tensor(config[part]).view(3, 1, 1), persistent=False)

    def start(self) -> None:
        """Read the weights.

        Raises:
            ConnectionError: If they cannot be downloaded.
            FileNotFoundError: If there is no such file.
            ValueError: If they do not fit.
        """
        remedy = "name a local file by the key 'weights'"
        if self.weights == "published":
            try:
                found = timm.create_model(self.name, pretrained=True, num_classes=self.classes).state_dict()
            except Exception as error:  # of many kinds, from several layers of download
                reason = str(error).splitlines()[0]
                raise ConnectionError(
                    f"weights of {self.name} could not be had from timm: {reason}; {remedy}"
                ) from None
        else:
            if not self.weights.is_file():
                raise FileNotFoundError(f"no weights of {self.name} at {self.weights}; {remedy}")
            found = published_weights(self.weights)
        try:
            self.model.load_state_dict(found)
        except (RuntimeError, AttributeError, TypeError):
            raise ValueError(
                f"{self.weights} are no weights of timm's {self.name} with {self.classes} classes"
            ) from None

    def _prepared(self, x: Tensor) -> Tensor:
        x = (x.expand(-1, 3, -1, -1) + 1) / 2
        if tuple(x.shape[2:]) != tuple(self.size):
            x = F.interpolate(x, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        return (x - self.mean) / self.std

    def features(self, x: Tensor) -> Tensor:
        """Penultimate vector ``(B, D)``."""
        return self.model.forward_head(self.model.forward_features(self._prepared(x)), pre_logits=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        return self.model(self._prepared(x))
