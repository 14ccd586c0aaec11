"""Weights that the papers' authors and their sources published, under the names of our networks."""
