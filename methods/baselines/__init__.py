"""Baselines of the papers, and simple ones of our own."""
