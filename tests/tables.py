"""Records and results with few words, for tests of tables and comparisons."""

from benchmark.results.record import Results, measured

GOOD = {"accuracy/clean": 0.98, "fd": 0.3, "nll": 1.8, "is": 7.0, "cpu_seconds/train": 100.0}


def number(cell="da", seed=0, metric="accuracy/clean", value=0.98, n=360, stderr=None, method="m", **protocol):
    return measured(cell, method, seed, metric, value, n=n, stderr=stderr, protocol=protocol)


def twice(cell, **kwargs):
    """The same number of two seeds: a difference of such cells is certain."""
    return [number(cell, seed, **kwargs) for seed in range(2)]


def results(*records, suite="digits", commit="abc"):
    return Results(suite, commit, {}, records)


def table(seeds=(0,), cells=("da", "cdm"), **worse):
    """A table of two cells; ``worse`` replaces values of the cell ``da``."""
    values = {metric: worse.get(metric.replace("/", "_"), value) for metric, value in GOOD.items()}
    return results(
        *(
            number(cell, seed, metric, values[metric] if cell == "da" else value, n=1000)
            for cell in cells
            for seed in seeds
            for metric, value in GOOD.items()
        )
    )
