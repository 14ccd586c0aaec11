"""Silence of libraries at their start."""

import logging
import os
import warnings


def quieten() -> None:
    """Silence messages of libraries at every start, except errors."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|torch|jsonargparse")
