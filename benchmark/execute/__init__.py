"""Engines that carry out a suite's jobs."""
