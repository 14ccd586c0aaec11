"""Answers of methods: one module a question."""
