"""Numbers from answers: one module a table."""
