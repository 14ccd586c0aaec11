"""Suites, their jobs, and the keys of stages. Imports no torch."""
