"""Training in bfloat16 and in double precision as a key of the configuration."""

import pytest
import spread_training
import torch

from benchmark import cli
from benchmark.training.checkpoints import FINAL

BF16 = ("--trainer.devices=1", "--trainer.precision=bf16-mixed")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cdm", "score_model"])
def test_a_fused_optimiser_with_clipped_gradients_trains_in_bfloat16(name, tmp_path):
    exact = spread_training.train(name, tmp_path / "a", "--trainer.devices=1", "--trainer.gradient_clip_val=0.1")
    found = spread_training.train(name, tmp_path / "b", *BF16, "--trainer.gradient_clip_val=0.1")
    assert not torch.equal(exact["steps"][-1]["denoise"], found["steps"][-1]["denoise"])
    torch.testing.assert_close(found["steps"], exact["steps"], rtol=0.02, atol=1e-3)
    for name, weight in found["raw"].items():
        assert weight.dtype == torch.float32, name


def test_gradients_are_clipped_in_bfloat16(tmp_path):
    free, clipped = (
        spread_training.train("score_model", tmp_path / f"{value}", *BF16, f"--trainer.gradient_clip_val={value}",
                              "--optimizer.class_path=torch.optim.SGD", "--optimizer.init_args.lr=1", steps=1)
        for value in (1e9, 1e-9)
    )  # fmt: skip
    assert max(float((free["raw"][n] - w).abs().max()) for n, w in clipped["raw"].items()) > 1e-3


@pytest.mark.parametrize("name", ["supervised", "score_model"])
def test_double_precision_trains_averages_and_validates_in_double(name, tmp_path):
    words = (f"--config=configs/digits/{name}.yaml", "--trainer.logger=false", "--trainer.enable_progress_bar=false")
    double = (
        "--trainer.precision=64",
        "--trainer.max_steps=2",
        "--data.batch_size=8",
        "--trainer.val_check_interval=1",
    )
    more = ("--data.validation_fraction=0.01", f"--trainer.default_root_dir={tmp_path}")
    assert cli.main(["fit", *words, *double, *more]) is None
    found = torch.load(tmp_path / "checkpoints" / FINAL, weights_only=True)["state_dict"]
    single = {name for name, weight in found.items() if weight.is_floating_point() and weight.dtype != torch.float64}
    assert single == set()
    assert all(bool(torch.isfinite(weight).all()) for weight in found.values())
    assert cli.main(["validate", *words, *double, *more]) is None
