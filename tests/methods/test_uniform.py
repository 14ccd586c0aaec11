"""The density of uniform images, from the data to bits per dimension."""

import math

import pytest
import torch
from lightning import Trainer

from datamodules.toys import UniformCube
from methods.baselines.uniform import UniformDensity


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gamma", [0.25, 0.5, 1.0, 2.0, 3.0])
def test_it_takes_the_width_from_the_data_and_gives_the_analytic_log_density(gamma, tmp_path):
    data, method = UniformCube(gamma, (3, 4, 5), count=100, test_count=20, batch_size=10), UniformDensity()
    Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=1, default_root_dir=tmp_path, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(method, datamodule=data)  # fmt: skip
    (batch,) = data.test_dataloader()
    x = batch["labeled"][0]
    torch.testing.assert_close(method.log_prob(x) / 60, torch.full((20,), -math.log(gamma)))
    bits = data.grey.bits_per_dim(method.log_prob(x), 60)
    torch.testing.assert_close(bits, torch.full((20,), 15 + math.log2(gamma / max(1, gamma / 2))))
    x[0, 0, 0, 0] = 1.01 * gamma / 2
    assert method.log_prob(x)[0] == -math.inf
    assert method.log_prob(x)[1:].isfinite().all()


def test_a_copy_states_its_own_width():
    first, second = UniformDensity(), UniformDensity()
    second.load_state_dict({"log_width": torch.tensor(math.log(0.5))})
    x = torch.zeros(2, 1, 2, 2)
    assert first.log_prob(x).tolist() == [0, 0]
    torch.testing.assert_close(second.log_prob(x), torch.full((2,), 4 * math.log(2)))
