"""What a researcher runs: train, sample, evaluate, tabulate, compare."""
