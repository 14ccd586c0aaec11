"""The LightningCLI behind `lightning`: the library's own, with its sharp edges taken off."""

import logging
import os
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from torch.optim import Optimizer

from benchmark.callbacks import EMA, AtomicCheckpointIO, FiniteLoss, KeyedRandomness, ResumePoints
from benchmark.errors import InputError
from datamodules.base import ImageData
from methods.base import Method

TRAINER_DEFAULTS = {
    "max_epochs": -1,
    "inference_mode": False,  # guidance and energy-like methods need gradients in evaluation
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "enable_checkpointing": True,
    "use_distributed_sampler": False,
    "default_root_dir": "runs/lightning",
}


class Parser(LightningArgumentParser):
    """Reports what is wrong in one line instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> None:
        raise InputError(_condensed(message))


def _condensed(message: str) -> str:
    """The informative lines of a parser's message, on one line."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    dropped = ("Does not validate against", "Subtypes:", "Errors:", "Given value", "Expected a <class 'NoneType'>")
    kept = [line for line in lines if not line.startswith(dropped)]
    return re.sub(r"\s+", " ", "; ".join(kept or lines)).replace(":;", ":")


class BenchmarkCLI(LightningCLI):
    """LightningCLI whose method and data set are named by class path in YAML.

    Deviations: the checkpoint never overrides the command line; optimiser schedules advance by step; averaging, keyed
    randomness, the loss guard and resume points are always on; errors are one line; a folder holds one configuration.

    Args:
        args: Command line.
        stop: Asked after each step whether to save and stop.
        run: Whether ``args`` has a subcommand to carry out.
    """

    def __init__(self, args: ArgsType = None, stop: Callable[[], bool] = lambda: False, run: bool = True) -> None:
        self._stop = stop
        quieten()
        super().__init__(
            Method,
            ImageData,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=Parser,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            args=args,
            run=run,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_argument("--channels_last", type=bool, default=True, help="layout of the weights of convolutions")
        parser.add_argument("--checkpoint_every", type=int, default=1000, help="steps between two resume points")
        parser.link_arguments("seed_everything", "data.init_args.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().parse_arguments(parser, args)

    def after_instantiate_classes(self) -> None:
        if self._get(self.config, "channels_last"):
            self.model.to(memory_format=torch.channels_last)

    def _parse_ckpt_path(self) -> None:
        """A checkpoint supplies weights and state, never settings."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        every = self._get(self.config, "checkpoint_every")
        if every < 1:
            raise InputError(f"checkpoint_every must be at least 1, got {every}")
        steps = self._get(self.config_init, "trainer").max_steps
        if steps < -1:
            raise InputError(f"trainer.max_steps must be -1 (no limit) or more, got {steps}")
        folder = self._get(self.config_init, "trainer").default_root_dir
        self.trainer_defaults["callbacks"] = [
            KeyedRandomness(int(self._get(self.config, "seed_everything"))),
            FiniteLoss(),
            ResumePoints(every_n_steps=every, stop=self._stop),
        ]
        kwargs["plugins"] = [AtomicCheckpointIO(), *(self._get(self.config_init, "trainer").plugins or [])]
        if self._get(self.config_init, "trainer").logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(folder, name="", version="tensorboard")
        return super().instantiate_trainer(**kwargs)

    @staticmethod
    def configure_optimizers(lightning_module: Method, optimizer: Optimizer, lr_scheduler: Any = None) -> Any:
        if lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_scheduler, "interval": "step"}}


def quieten() -> None:
    """Silence what libraries print at every start; errors stay."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|torch|jsonargparse")
