"""Races of what suites call against peers' code for the same work; run by ``python -m benchmark.speed``."""
