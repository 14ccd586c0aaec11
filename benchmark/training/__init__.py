"""Training of one method."""
