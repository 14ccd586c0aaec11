"""Metrics of 50,000 samples as records compute them, what belongs to the real images being at hand."""

from pathlib import Path

import torch

from benchmark.answers.features import LARGE
from benchmark.metrics import neighbours
from benchmark.metrics.features import extract
from benchmark.metrics.fidelity import inception_score
from benchmark.metrics.frechet import Statistics, frechet_estimate
from benchmark.metrics.published_networks import InceptionFeatures
from benchmark.speed.gpu_bench import Card
from benchmark.speed.gpu_items import Skipped
from benchmark.speed.metrics import features, random_weights
from benchmark.speed.peers import Peers
from benchmark.system.files import digest_file


def g9(card: Card) -> None:
    """Features by Inception with random weights, and the metrics of them, in seconds of the wall's clock."""
    peers = Peers({})
    if (extractor := peers.package("torch_fidelity.feature_extractor_inceptionv3")) is None:
        raise Skipped(peers.lacking["torch_fidelity"])
    n = card.size(50_000, 4)
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8)
    weights = random_weights(extractor.FeatureExtractorInceptionV3, Path(card.task.folder))
    network = InceptionFeatures(weights, sha256=digest_file(weights))
    part = images[: card.size(2_000, 1)]
    rate = card.rate(lambda: extract(network, part, LARGE, card.device), len(part), warm=1)
    card.row("inception/rate", rate, "images/s", network.flops, batch=LARGE)
    seconds = {}
    start = card.now()
    found = extract(network, images, LARGE, card.device)
    seconds["inception"] = card.now() - start
    card.row("inception", seconds["inception"], "s", images=n)
    fake, probabilities = found["features"], found["probabilities"]
    n = card.size(n, 64)
    if card.tiny:  # a distance between so few images takes fewer dimensions
        fake, probabilities = features(n, 16, 3).numpy(), torch.rand(n, 4).softmax(1).numpy()
    real = features(n, fake.shape[1], 2)
    reference = Statistics.of(real)
    reference.root  # noqa: B018  (computed once a suite)
    radii = neighbours.neighbour_radii(real, device=card.device)
    for name, work in (
        ("frechet", lambda: frechet_estimate(reference, fake)),
        ("inception score", lambda: inception_score(probabilities)),
        (
            "precision and recall",
            lambda: neighbours.precision_recall(real, fake, real_radii=radii, device=card.device),
        ),
    ):
        start = card.now()
        work()
        seconds[name] = card.now() - start
        card.row(name, seconds[name], "s", samples=n)
    card.row("all", sum(seconds.values()), "s", samples=n)
