"""Features of noisy images, read by logistic regressions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmark.suite.protocol import Protocol
from benchmark.system.arrays import batches, save_arrays
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method, NoiseProcess

TIMES = tuple(round(0.1 * k, 1) for k in range(10))
"""Times at which features are read."""
IMAGES = 2000
"""Training and test images of a regression, a random choice of each."""


def probe(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Write which test images logistic regressions on features of noisy images get right to ``probe.npz``.

    At each of ``times (L,)``, with sigma / alpha in ``sigmas (L,)``, one regression of the class, or one of each
    attribute of data that have several, is fitted to the features ``r(x_t, t)`` of training images, and asked about
    test images: ``right (L, N, A)``, with ``names (A,)`` of the attributes.

    Features are those of the method's classifier, or else those of its denoiser's network.

    Source: (e) Sec. 3, Fig. 2b.
    """
    reader = _reader(method)
    if reader is None:
        return {"outputs": [], "reason": "no features of noisy images"}
    features, process = reader
    names = list(getattr(data, "attribute_names", ["class"]))
    times = process.times_at(torch.tensor(TIMES, device=method.device))
    parts = {part: _some(data, part, protocol) for part in ("train", "test")}

    def read(part: str, u: Tensor, t: Tensor) -> np.ndarray:
        found = []
        for rows in batches(len(u), protocol.batch):
            x = data.grey.centre(u[rows.start : rows.stop]).to(method.device)
            eps = KeyedNoise(protocol.seed, f"probe {part}", rows, data.shape, method.device)()
            at = t.expand(len(x))
            with torch.no_grad():
                found.append(features(process.perturb(x, at, eps)[0], at).float().cpu().numpy())
        return np.concatenate(found)

    right = []
    for done, t in enumerate(times):
        train, test = (read(part, u, t) for part, (u, _) in parts.items())
        (_, wanted), (_, truth) = parts.values()
        right.append(np.stack([_predicted(train, w, test) for w in wanted.T], 1) == truth)
        report("probe", done + 1, len(times))
    sigmas = process.log_sigma(times).exp().cpu().numpy()
    save_arrays(
        folder / "probe.npz", right=np.stack(right), times=np.array(TIMES), sigmas=sigmas, names=np.array(names)
    )
    return {"outputs": ["probe.npz"], "images": len(parts["train"][0])}


def _reader(method: Method) -> tuple[Callable[[Tensor, Tensor], Tensor], NoiseProcess] | None:
    """Features of noisy images at times, and the noise process; None if the method has none."""
    for part in (method.classifier, method.denoiser):
        features = getattr(part, "features", None)
        process = getattr(part, "process", None) or getattr(getattr(part, "denoiser", None), "process", None)
        if features is not None and process is not None:
            return features, process
    return None


def _some(data: ImageData, part: Literal["train", "test"], protocol: Protocol) -> tuple[Tensor, np.ndarray]:
    """Some images of a part, and what is to be told, ``(N, A)``: the class, or all attributes."""
    place = part if part == "train" else protocol.part
    u, y = data.images(place)
    rows = np.random.default_rng([protocol.seed, 8]).permutation(len(u))[:IMAGES]
    if part == "test":
        rows = rows[: protocol.test_images]
    told = data.attributes(place) if hasattr(data, "attributes") else y[:, None]
    return u[rows], told[rows].numpy()


def _predicted(train: np.ndarray, wanted: np.ndarray, test: np.ndarray) -> np.ndarray:
    if (wanted == wanted[0]).all():
        return np.full(len(test), wanted[0])
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    return regression.fit(train, wanted).predict(test)
