"""The LightningCLI of `lightning`."""

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from benchmark.errors import InputError, escaped, innermost, tell
from benchmark.system.lock import owned
from benchmark.system.surroundings import absolute, make_paths_absolute
from benchmark.training.callbacks import (
    EMA,
    CompiledNetworks,
    FiniteLoss,
    KeyedRandomness,
    KnownMonitors,
    Logs,
    ShardStatistics,
    StopsUnsaved,
    UnscaledMixedPrecision,
    check_precision,
)
from benchmark.training.checkpoints import (
    FINAL,
    AtomicCheckpointIO,
    ResumePoints,
    check_weights,
    checkpoints,
    final_weights,
    resume_point,
)
from benchmark.training.checks import check_shapes
from benchmark.training.confined import check_confined
from benchmark.training.data_settings import asks_data, fill_from_data
from benchmark.training.parser import Parser
from benchmark.training.predict import predict
from benchmark.training.progress import StepBar
from benchmark.training.quiet import quieten
from benchmark.training.restoring import restoring
from benchmark.training.sample import SamplingTrainer
from benchmark.training.saved_config import DATA, KeptConfig, check_same_training
from benchmark.training.views import SomeValidations, Views
from datamodules.base import ImageData
from methods.base import Method

TRAINER_DEFAULTS = {
    "max_epochs": -1,
    "devices": 1,  # random draws of a step depend on the number of shards
    "inference_mode": False,  # guidance and energy-like methods need gradients in evaluation
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "enable_checkpointing": True,
    "use_distributed_sampler": False,
    "default_root_dir": "runs/lightning",
}
NEEDS = {"predict": ("classify", "predicts no classes"), "sample": ("sample", "draws no images")}
"""Capability that a command needs, and the message for methods without it."""


class BenchmarkCLI(LightningCLI):
    """LightningCLI whose method and data set are named by class path in YAML.

    Deviations: the checkpoint never overrides the command line; optimiser schedules advance by step; averaging, keyed
    randomness, the loss guard and resume points are always on; errors are one line; ``--ckpt_path=last`` is the newest
    resume point in the run's folder that is intact.

    Args:
        explain: Shortens the parser's messages about ``args`` to one line.
        args: Command line.
        stop: Returns after each step whether to save and stop.
        run: Whether ``args`` has a subcommand to run.
        here: Whether the trainer gets the requested devices, which only another machine may have.
        watchers: Further callbacks, which no configuration may name.
    """

    _known: ClassVar[LightningArgumentParser | None] = None

    def __init__(
        self,
        explain: Callable[[str], str],
        args: ArgsType = None,
        stop: Callable[[], bool] = lambda: False,
        run: bool = True,
        here: bool = True,
        watchers: Sequence[Callback] = (),
    ) -> None:
        self._explain, self._stop, self._here, self._watchers = explain, stop, here, watchers
        self._given = args[0] if run and isinstance(args, Sequence) and args and args[0] in self.subcommands() else None
        quieten()
        super().__init__(
            Method,
            ImageData,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_class=SamplingTrainer,
            parser_class=Parser,
            save_config_callback=None,
            seed_everything_default=0,
            load_from_checkpoint_support=False,  # a checkpoint holds weights alone
            trainer_defaults=dict(TRAINER_DEFAULTS),
            args=args,
            run=run,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        left_out = {**LightningCLI.subcommands(), "sample": {"model", "datamodule"}}
        left_out["predict"].add("return_predictions")
        return {name: {*of_one, "weights_only"} for name, of_one in left_out.items()}  # checkpoints are never pickles

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        if self._given in (None, subcommand):
            return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        return self.init_parser(**kwargs)  # the options of a subcommand that is not given cost a tenth of a second

    def setup_parser(self, add_subcommands: bool, *settings: Any) -> None:
        """Set the parser up, or take that of an earlier build in this process: a tenth of a build's time."""
        if add_subcommands or BenchmarkCLI._known is None:
            super().setup_parser(add_subcommands, *settings)
        if not add_subcommands:
            self.parser = BenchmarkCLI._known = BenchmarkCLI._known or self.parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_argument(
            "--needs", type=dict[str, dict[str, str]], default={}, help="cells of a suite whose weights the method gets"
        )
        parser.add_argument("--channels_last", type=bool, default=True, help="layout of the weights of convolutions")
        parser.add_argument(
            "--compile", type=bool, default=False, help="compile networks for training; not for second derivatives"
        )
        parser.add_argument(
            "--checkpoint_every", type=PositiveInt, default=1000, help="steps between two resume points"
        )
        parser.add_argument(
            "--views_every", type=PositiveInt, default=500, help="least steps between two pictures in TensorBoard"
        )
        parser.link_arguments("seed_everything", "data.init_args.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                super().parse_arguments(parser, args)
            except InputError as error:
                raise InputError(self._explain(str(error))) from None

    def _parse_ckpt_path(self) -> None:
        """Does nothing: a checkpoint supplies weights and state, never settings."""

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError:
            seed = self._get(self.config, "seed_everything")
            raise InputError(f"seed_everything must be an integer from 0 to 2^32 - 1, got {seed}") from None

    def instantiate_classes(self) -> None:
        config = self.config if self.subcommand is None else self.config[self.subcommand]
        written = copy.deepcopy(config.trainer)
        make_paths_absolute(config.trainer)
        try:
            with self._data_first(config):
                super().instantiate_classes()
        except (ValueError, TypeError, RuntimeError, OSError, MisconfigurationException) as error:
            if os.environ.get("DIFFCLASS_DEBUG"):
                raise
            raise InputError(innermost(error)) from error
        config.trainer = written
        denoiser, steps = self.model.denoiser, getattr(self.model.sampler, "steps", None)
        if denoiser is not None and steps is not None:
            try:
                denoiser.process.grid(steps)
            except ValueError as error:
                raise InputError(f"model.init_args.sampler: {innermost(error)}") from error

    @contextmanager
    def _data_first(self, config: Namespace) -> Iterator[None]:
        """Replace the method's settings from the data set, which is then built first and once."""
        if not asks_data(config.model):
            yield
            return
        parser = self.parser if self.subcommand is None else self._parser(self.subcommand)
        written = config.data
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the parser's own method
            config.data = parser.instantiate_classes(Namespace(data=written)).data
        fill_from_data(config.model, config.data)
        try:
            yield
        finally:
            config.data = written

    def after_instantiate_classes(self) -> None:
        if self._get(self.config, "channels_last"):
            self.model.to(memory_format=torch.channels_last)
        if self.trainer.max_steps == 0:
            self.model.configure_optimizers = lambda: None  # no training, no optimiser

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        trainer = self._get(self.config_init, "trainer")
        least = 1 if self.model.start is None else 0  # published weights may be used untrained
        if trainer.max_steps is None or (trainer.max_steps < least and trainer.max_steps != -1):
            hint = "; 0 is for published weights alone, model.init_args.checkpoint" if trainer.max_steps == 0 else ""
            raise InputError(
                f"trainer.max_steps must be at least {least}, or -1 for no limit, got {trainer.max_steps}{hint}"
            )
        if self.subcommand == "fit" and trainer.max_steps == trainer.max_epochs == -1 and trainer.max_time is None:
            raise InputError("training would never end; give trainer.max_steps or trainer.max_epochs")
        self.trainer_defaults["callbacks"] = self._callbacks(trainer)
        root = Path(trainer.default_root_dir).expanduser().absolute()
        kwargs["plugins"] = [AtomicCheckpointIO(root), *_listed(trainer.plugins)]
        if trainer.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(trainer.default_root_dir, name="", version="tensorboard")
        if not self._here:
            kwargs |= {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
        built = super().instantiate_trainer(**kwargs)
        built.callbacks.insert(0, KnownMonitors())  # before the callbacks that it checks
        check_confined(built)
        check_precision(built)
        if isinstance(built.strategy, DDPStrategy):
            # Buffers are constants, or kept equal by ShardStatistics.
            built.strategy._ddp_kwargs.setdefault("broadcast_buffers", False)
        precision = built.precision_plugin
        if type(precision) is MixedPrecision and precision.scaler is None:
            built.strategy.precision_plugin = UnscaledMixedPrecision(precision.precision, precision.device)
        return built

    def _callbacks(self, trainer: Any) -> list[Callback]:
        """Callbacks of every training besides those of the settings."""
        every = self._get(self.config, "checkpoint_every")
        bars = [] if any(isinstance(own, ProgressBar) for own in _listed(trainer.callbacks)) else [StepBar()]
        return [
            KeyedRandomness(int(self._get(self.config, "seed_everything"))),
            *[kind() for kind in (ShardStatistics, FiniteLoss, Logs, SomeValidations)],
            Views(self._get(self.config, "views_every")),
            *([CompiledNetworks(self.model)] if self._get(self.config, "compile") else []),
            StopsUnsaved(self._stop) if trainer.fast_dev_run else ResumePoints(every_n_steps=every, stop=self._stop),
            *([] if trainer.enable_progress_bar is False else bars),
            *self._watchers,
        ]

    def _run_subcommand(self, subcommand: str) -> None:
        capability, lacking = NEEDS.get(subcommand, ("", ""))
        if capability in self.model.unsupported:
            raise InputError(f"{type(self.model).__name__} {lacking}: {self.model.unsupported[capability]}")
        check_shapes(self.model, self.datamodule)
        writes = subcommand == "fit" and self.trainer.is_global_zero and not self.trainer.fast_dev_run
        root = Path(self.trainer.default_root_dir)
        try:
            with owned(root, "--trainer.default_root_dir") if writes else nullcontext(), restoring(self.trainer):
                super()._run_subcommand(subcommand)
        except MisconfigurationException as error:
            raise InputError(innermost(error)) from error

    @property
    def settings(self) -> str:
        """YAML of all settings, which ``lightning fit --config`` reads again, below a comment on the data."""
        config = (self.config if self.subcommand is None else self.config[self.subcommand]).clone()
        config.pop("ckpt_path", None)  # an option of this call
        parser = self.parser if self.subcommand is None else self._parser(self.subcommand)
        settings = parser.dump(config, skip_unset=False)  # a null may replace another default
        return f"{DATA}{self.datamodule.fingerprint('train')}\n{settings}"

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        folder, fits, path = Path(self.trainer.default_root_dir), subcommand == "fit", kwargs.get("ckpt_path")
        lasts = fits and not self.trainer.fast_dev_run
        if path == "last":
            path = resume_point(folder / "checkpoints")
            if path is None:
                raise InputError(f"no resume point in {folder / 'checkpoints'}")
        elif path is None and lasts and checkpoints(folder / "checkpoints"):
            raise InputError(
                f"{folder / 'checkpoints'} holds resume points of a training that has not ended: "
                "go on with --ckpt_path=last, or choose another folder with --trainer.default_root_dir"
            )
        elif path:
            path = absolute(path)
        found = None
        if path is None and not fits:
            given = [Path(file.absolute).parent for file in self._get(self.config, "config") or [] if file is not None]
            found = final_weights([*given[::-1], folder])
            if found is None and self.model.start is None:
                lacking = f"needs trained weights, there is no {folder / 'checkpoints' / FINAL}; give --ckpt_path=FILE"
                raise InputError(f"{subcommand} {lacking}")
        path = kwargs["ckpt_path"] = found if path is None else path
        if path is not None:
            check_weights(path, self.model, whole_state=fits)
            self.model.start = None  # not the weights that its training started from
        if found is not None and self.trainer.is_global_zero:
            tell(f"note: the weights are those of {found}")
        if lasts:
            settings = self.settings
            check_same_training(folder, settings, goes_on=path is not None)
            self.trainer.callbacks.insert(0, KeptConfig(folder, settings))
        return kwargs

    def predict(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None) -> None:
        """Write class probabilities of the test part to a file."""
        path = predict(self.trainer, model, datamodule, ckpt_path)
        if path is not None:
            print(f"predictions: {escaped(path)}")

    @staticmethod
    def configure_optimizers(lightning_module: Method, optimizer: Optimizer, lr_scheduler: Any = None) -> Any:
        if lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_scheduler, "interval": "step"}}


def _listed(value: Any) -> list[Any]:
    """A setting of one value, a list or None as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]
