"""Commands of the benchmark: train, sample, evaluate, tabulate, compare."""
