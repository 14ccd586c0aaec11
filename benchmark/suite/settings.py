"""Settings of a resolved configuration that numbers depend on: all except those named here, with reasons."""

from collections.abc import Iterable, Mapping
from typing import Any

SAMPLING = ("sampler", "guidance_rule", "guides")
NOT_TRAINING = (*SAMPLING, "likelihood", "guidance_scale")
"""Arguments of a method that its weights do not depend on: the losses use none of them."""
WITHOUT_EFFECT = {
    "needs": "weights from other cells have keys of their own",
    "checkpoint_every": "resume points are copies of the state",
    "views_every": "watches",
    "trainer.default_root_dir": "where files go",
    "trainer.logger": "watches",
    "trainer.log_every_n_steps": "watches",
    "trainer.enable_autolog_hparams": "watches",
    "trainer.enable_progress_bar": "watches",
    "trainer.enable_model_summary": "watches",
    "trainer.profiler": "watches",
    "trainer.detect_anomaly": "ends a training or changes nothing",
    "trainer.limit_test_batches": "a training does not test",
    "trainer.limit_predict_batches": "a training does not predict",
}
"""Settings that trained weights do not depend on, by dotted key, with the reason."""
PLACE = {
    "root": "images count by their content",
    "download": "images count by their content",
    "workers": "batches are functions of the step, whichever worker reads them",
}
"""Settings of data sets, nested ones included, that do not change the images, with the reason."""
WATCHING = {
    "benchmark.training.torchrun.Messages",
    *(
        f"lightning.pytorch.callbacks.{name}"
        for name in (
            *("DeviceStatsMonitor", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary"),
            *("RichModelSummary", "RichProgressBar", "TQDMProgressBar"),
        )
    ),
}
"""Callbacks that watch a training or write copies of its state."""
CONTENT = "content"
"""Key of a resolved configuration that holds the content of its data and files, see ``contents``."""


def training_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Part of a resolved configuration that trained weights depend on, with the content of data and files.

    Raises:
        KeyError, TypeError, AttributeError: If it is no configuration.
    """
    content = config.get(CONTENT) or {}
    kept = without(config, [*WITHOUT_EFFECT, CONTENT])
    model, trainer = config["model"], kept.get("trainer") or {}
    settings = {k: v for k, v in (model.get("init_args") or {}).items() if k not in NOT_TRAINING}
    kept |= {
        "model": {"class_path": model["class_path"], "init_args": settings},
        "data": _without_place(kept.get("data")),
        "trainer": {**trainer, "callbacks": _with_effect(trainer.get("callbacks"))},
    }
    return {**_by_content(kept, content.get("files") or {}), CONTENT: (content.get("data") or {}).get("train")}


def method_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a resolved configuration's method, with the content of files that they name."""
    return _by_content(config["model"].get("init_args") or {}, (config.get(CONTENT) or {}).get("files") or {})


def data_key(config: Mapping[str, Any]) -> dict[str, Any]:
    """Identity of the images of a resolved configuration's data: its settings, and the content of all parts."""
    return {"data": _without_place(config["data"]), CONTENT: (config.get(CONTENT) or {}).get("data")}


def without(config: Mapping[str, Any], dotted: Iterable[str]) -> dict[str, Any]:
    """Copy of nested mappings without the dotted keys."""
    copy = {k: without(v, ()) if isinstance(v, dict) else v for k, v in config.items()}
    for key in dotted:
        *path, last = key.split(".")
        place = copy
        for part in path:
            place = place.get(part) or {}
        place.pop(last, None)
    return copy


def _without_place(data: Any) -> Any:
    return {k: _without_place(v) for k, v in data.items() if k not in PLACE} if isinstance(data, dict) else data


def _with_effect(callbacks: Any) -> Any:
    """Callbacks that weights may depend on; None if there are none."""
    listed = callbacks if isinstance(callbacks, list) else [callbacks]
    kept = [c for c in listed if c and not (isinstance(c, dict) and c.get("class_path") in WATCHING)]
    return kept or None


def _by_content(value: Any, files: Mapping[str, str]) -> Any:
    """Nested settings with the path of each file replaced by the digest of its content."""
    if isinstance(value, dict):
        return {k: _by_content(v, files) for k, v in value.items()}
    if isinstance(value, list):
        return [_by_content(v, files) for v in value]
    return {"sha256": files[value]} if isinstance(value, str) and value in files else value
