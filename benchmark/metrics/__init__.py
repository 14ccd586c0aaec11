"""Metrics: pure functions of arrays, one file per family."""
