"""Training in bfloat16 as a key of the configuration."""

import pytest
import spread_training
import torch

BF16 = ("--trainer.devices=1", "--trainer.precision=bf16-mixed")


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
