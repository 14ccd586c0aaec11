"""The questions of a run: suites, jobs, keys of stages. Imports no torch."""
