"""Trainings of Fashion-MNIST by our own configurations, for a stated number of steps."""

from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from benchmark.errors import InputError
from benchmark.speed.gpu_bench import Card
from benchmark.speed.gpu_items import STEPS, Skipped
from benchmark.suite.jobs import arguments
from benchmark.suite.suite import load_suite
from benchmark.training.build import build
from benchmark.training.checkpoints import FINAL
from datamodules.base import stand_ins

SUITE = "fashion_mnist"
RESERVE = 10
"""Seconds that a training leaves for saving its weights and for validation."""


def _trained(card: Card) -> None:
    """Train the cell of the item's name under bf16 autocast; weights of cells that it needs are this run's."""
    name = card.task.name
    cell = load_suite(SUITE, card.size("paper", "small")).cells[name]
    needed = {argument: card.task.folder / other for argument, other in cell.needs.items()}
    folder = card.task.folder / name
    seconds = max(1, int(card.left() - RESERVE))
    steps = card.size(STEPS[name], 2)
    words = [
        *arguments(cell, 0, folder, needed),
        f"--trainer.max_steps={steps}", f"--trainer.max_time={_clock(seconds)}",
        f"--trainer.accelerator={card.size('gpu', 'cpu')}", "--trainer.devices=1", "--trainer.precision=bf16-mixed",
        "--trainer.enable_progress_bar=false", "--views_every=1000000", 
        *card.size((), ("--data.batch_size=4", "--data.validation_fraction=0.001")),
    ]  # fmt: skip
    cli = _built(card, words)
    if name == "denoising_assisted" and not (needed["denoiser"] / "checkpoints" / FINAL).is_file():
        raise Skipped("its score model was not trained")
    with redirect_stdout(StringIO()):
        start = card.now()
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        took = card.now() - start
        done, images = cli.trainer.global_step, cli.datamodule.batch_size
        (found,) = cli.trainer.validate(cli.model, cli.datamodule, verbose=False)
    more = {key.removeprefix("val/"): value for key, value in found.items() if key in ("val/loss", "val/accuracy")}
    card.row(
        "training", done * images / took, "images/s", batch=images, steps=done, asked=steps, seconds=took, **more,
    )  # fmt: skip


def _clock(seconds: int) -> str:
    """Days, hours, minutes and seconds, as the trainer reads them."""
    return f"00:{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _built(card: Card, words: list[str]) -> Any:
    """Trainer, method and data; in a rehearsal, images stand in.

    Raises:
        Skipped: If there are no images.
    """
    if card.tiny:
        with stand_ins():
            return build(words)
    try:
        return build(words)
    except InputError as error:
        if "of fashion-mnist in" in str(error):
            raise Skipped(f"{error}; give --data-root") from None
        raise


score_model = noisy_classifier = denoising_assisted = cg_sc_100 = supervised = _trained
