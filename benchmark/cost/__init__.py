"""Costs before anything runs."""
