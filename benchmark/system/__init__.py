"""Files, locks and facts of the machine."""
