"""FLOPs, bytes and operators of networks and cells, against closed forms and published counts."""

import json
import math
import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark.cost.alike import counted_once
from benchmark.cost.counting import _built, _Training, count
from benchmark.cost.forecast import forecast, show_plan
from benchmark.cost.meter import META, measured
from benchmark.cost.rates import FILE, Rates, rates
from benchmark.cost.times import CellCost, Work
from benchmark.execute.local import LocalEngine
from benchmark.suite.jobs import arguments
from benchmark.suite.plan import plan
from benchmark.suite.suite import CONFIGS, Cell, load_suite
from benchmark.system.yaml_files import read_yaml
from methods.networks.ddpm_unet import DDPMUNet
from methods.networks.ncsnpp import NCSNpp

B, SIDE = 4, 8


def two_convolutions():
    """Convolutions 3 -> 5 -> 7 of 3x3, and the FLOPs of one pass of each over a batch."""
    with META:
        network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.SiLU(), nn.Conv2d(5, 7, 3, padding=1))
    first, second = (2 * B * SIDE**2 * 9 * a * b for a, b in ((3, 5), (5, 7)))
    return network, torch.zeros(B, 3, SIDE, SIDE, device=META), first, second


def test_a_forward_pass_has_the_flops_of_its_convolutions():
    network, x, first, second = two_convolutions()
    with torch.no_grad():
        call = measured(lambda: network(x))
    assert call.flops == first + second
    assert call.operators == 3


def test_a_step_adds_gradients_of_all_weights_and_of_inner_images():
    network, x, first, second = two_convolutions()
    assert measured(lambda: network(x).sum().backward()).flops == 2 * first + 3 * second


@pytest.mark.parametrize("labeled", [5, 8, 16])
def test_steps_in_which_labels_wait_cost_what_they_do_one_by_one(tmp_path, labeled):
    sizes = {"data.init_args.batch_size": labeled, "data.init_args.unlabeled_batch_size": 16 - labeled}
    cli, known = _built(Cell("joint", config=str(CONFIGS / "digits" / "joint.yaml"), set=sizes), tmp_path), {}
    _Training(cli, known)
    ((rounds, counted),) = known.values()
    assert rounds == math.ceil(16 / labeled)
    x, y = torch.zeros(16, 1, 8, 8, device=META), torch.zeros(16, dtype=torch.long, device=META)
    batch = {"labeled": (x[:labeled], y[:labeled]), **({"unlabeled": x[labeled:]} if labeled < 16 else {})}

    def step():
        cli.model.zero_grad()
        return measured(lambda: torch.stack(list(cli.model.losses(batch).values())).sum().backward())

    each = [step() for _ in range(rounds)]
    assert counted.flops == sum(call.flops for call in each)
    assert counted.operators == sum(call.operators for call in each)
    assert all(call.flops < each[-1].flops for call in each[:-1])


def test_a_step_in_parts_costs_as_many_flops_and_less_memory(tmp_path):
    costs = []
    for parts in (1, 4):
        cell = Cell(
            "joint", config=str(CONFIGS / "digits" / "joint.yaml"), set={"trainer.accumulate_grad_batches": parts}
        )
        costs.append(_Training(_built(cell, tmp_path / str(parts)), {}))
    (whole,), (parted,) = (cost.work for cost in costs)
    assert parted.flops == whole.flops
    assert costs[1].memory < 0.5 * costs[0].memory


def test_guidance_adds_the_gradient_of_the_images_alone():
    network, x, first, second = two_convolutions()
    network.requires_grad_(False)
    x.requires_grad_()
    assert measured(lambda: torch.autograd.grad(network(x).sum(), x)).flops == 2 * (first + second)


def test_a_loss_made_of_a_gradient_counts_its_second_derivatives():
    """``W -> |d f / d x|^2`` of one convolution: forward, its gradient, and the gradient of that in the weight."""
    with META:
        network = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    x = torch.zeros(B, 3, SIDE, SIDE, device=META, requires_grad=True)
    one = 2 * B * SIDE**2 * 9 * 3 * 5

    def step():
        (slope,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()

    # forward; slope; of the slope in its two arguments; of the forward pass in weight and image, the image being asked
    assert measured(step).flops == 6 * one


def test_bytes_are_those_of_weights_and_of_what_is_alive_at_once():
    weight, x = torch.zeros(16, 16, device=META), torch.zeros(8, 16, device=META)

    def call():
        h = x @ weight  # 512 bytes
        h = torch.relu(h)  # 512 more, then the first are free
        return h.view(-1) + 1  # a view takes none

    found = measured(call)
    assert found.resident == 4 * (16 * 16 + 8 * 16)
    assert found.peak == 2 * 4 * 8 * 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "weights", "flops"),
    [(lambda: NCSNpp(3, blocks=4), 62.76e6, 65.32e9), (lambda: DDPMUNet(3), 35.75e6, 37.32e9)],
    ids=["ncsnpp", "ddpm"],
)
def test_published_networks_cost_what_their_authors_code_costs(network, weights, flops):
    """FLOPs of forward and backward for a CIFAR-10 image, of score_sde's NCSN++ and of pytorch-ddpm."""
    with META:
        network = network()
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(weights, rel=1e-3)
    x, log_sigma = torch.zeros(2, 3, 32, 32, device=META), torch.zeros(2, device=META)
    found = measured(lambda: F.mse_loss(network(x, log_sigma), x).backward())
    assert found.flops / 2 == pytest.approx(flops, rel=2e-3)
    with FlopCounterMode(display=False) as counter:
        F.mse_loss(network(x, log_sigma), x).backward()
    assert found.flops == counter.get_total_flops()


def method(name, file, **init_args):
    return {"class_path": f"methods.{file}.{name}", "init_args": init_args}


def network(file, name, **init_args):
    return method(name, f"networks.{file}", **init_args)


def config(model, steps, precision="32-true"):
    return {
        "model": model,
        "data": {"class_path": "datamodules.vision.CIFAR10", "init_args": {"batch_size": 128}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-4}},
        "trainer": {"max_steps": steps, "precision": precision},
    }


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """A suite on CIFAR-10 with the network of the papers, 107 M weights, and no images."""
    folder = tmp_path_factory.mktemp("paper")
    score = method(
        "EpsDenoiser", "diffusion.denoiser",
        network=network("ncsnpp", "NCSNpp", in_channels=3, blocks=8),
        process={"class_path": "methods.diffusion.process.VarianceExploding"},
    )  # fmt: skip
    frozen = method("Pretrained", "diffusion.denoiser", denoiser=score, checkpoint="none.ckpt")
    sampler = method("PredictorCorrector", "diffusion.samplers", steps=1000)
    times = {"class_path": "methods.diffusion.process.UniformTimes"}
    wide = {"in_channels": 3, "classes": 10}
    encoder = network("ncsnpp_classifier", "NCSNppEncoderClassifier", **wide, image_size=32, blocks=4)
    files = {
        "supervised": config(
            method("Supervised", "supervised", network=network("wrn", "WideResNet", **wide, noise=False)), 10_000),
        "score": config(
            method("ScoreModel", "score_model", denoiser=score, times=times, sampler=sampler), 100_000, "bf16-mixed"),
        "assisted": config(
            method("DenoisingAssisted", "denoising_assisted", denoiser=frozen, sampler=sampler,
                   network=network("wrn", "WideResNet", **wide, inputs=2)), 20_000),
        "calibrating": config(
            method("SelfCalibrating", "self_calibrating", denoiser=frozen, sampler=sampler, network=encoder), 20_000),
    }  # fmt: skip
    files["assisted"]["needs"] = {"training": {"denoiser": "score"}}
    files["calibrating"]["needs"] = {"sampling": {"denoiser": "score"}}
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    suite = {
        "reference": "reference",
        "seeds": [0, 1],
        "protocol": {"samples": 50_000},
        "cells": {
            "reference": {"config": "supervised.yaml", "seed": 1000},
            "score": {"config": "score.yaml"},
            "assisted": {"config": "assisted.yaml", "guidance_scales": [1]},
            "calibrating": {"config": "calibrating.yaml", "guidance_scales": [1, 3]},
            "held_out": {"images": "test", "floor": True},
        },
    }  # fmt: skip
    (folder / "paper.yaml").write_text(yaml.safe_dump(suite))
    return load_suite(str(folder / "paper.yaml"))


@pytest.fixture(scope="module")
def jobs(paper, tmp_path_factory):
    """Its jobs, resolved where there are no images."""
    out = tmp_path_factory.mktemp("out")
    cells = {
        name: arguments(cell, 0, out / name, {key: out / other for key, other in cell.needs.items()})
        for name, cell in paper.cells.items()
        if cell.config is not None
    }
    with LocalEngine(1) as engine:
        return plan(paper, engine.resolve(cells, dry=True), out, paper.seeds)


@pytest.fixture(scope="module")
def costs(paper):
    return count(paper, list(paper.cells))


@pytest.mark.slow
def test_every_cell_is_counted_without_images_weights_or_much_time(paper, costs):
    assert {name: cost for name, cost in costs.items() if not isinstance(cost, CellCost)} == {}
    assert costs.keys() == paper.cells.keys()


USED = {"samples_with": {"denoiser": "r"}}


def test_seconds_are_those_of_the_slower_of_arithmetic_and_launches():
    device = Rates("d", train=2.0, train_half=4.0, evaluate=8.0, operator=0.5, measured=False)
    train = [Work(16, 1), Work(16, 1, half=True), Work(16, 100)]
    cost = CellCost({"train": train, "evaluate": [Work(16, 1)]}, {}, {})
    assert cost.seconds("train", device) == 8 + 4 + 50
    assert cost.seconds("evaluate", device) == 2


def test_every_rate_says_whether_it_was_measured():
    kinds = read_yaml(FILE)
    assert {"h100", "cpu"} <= kinds.keys()
    for kind in kinds:
        assert rates(kind).origin in ("measured", "assumed, not measured")
        assert min(rates(kind).train, rates(kind).train_half, rates(kind).evaluate, rates(kind).operator) > 0


def job(name, config, **cell):
    return SimpleNamespace(cell=Cell(name, config="a.yaml", **cell), config=config)


def test_cells_that_differ_in_what_costs_nothing_are_counted_once():
    """Seeds, labels of a training by steps, learning rates and paths cost nothing; sizes, steps and scales do."""
    model = {"class_path": "M", "init_args": {"width": 1, "denoiser": {"init_args": {"checkpoint": "a"}}}}
    base = {"model": model, "data": {"init_args": {"batch_size": 8, "labels": None}}, "trainer": {"max_steps": 9}}

    def changed(key, value):
        config = json.loads(json.dumps(base))
        place = config
        *path, last = key.split(".")
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
        return config

    free = {"seed_everything": 1, "data.init_args.labels": 0.1, "data.init_args.seed": 2, "optimizer.lr": 0.1,
            "model.init_args.denoiser.init_args.checkpoint": "b", "trainer.default_root_dir": "d"}  # fmt: skip
    dear = {"data.init_args.batch_size": 4, "trainer.max_steps": 8, "model.init_args.width": 2, "checkpoint_every": 5,
            "trainer.precision": "bf16-mixed"}  # fmt: skip
    jobs = [job("r", base), job("a", base, **USED)]
    jobs += [job(key, changed(key, value), **USED) for key, value in (free | dear).items()]
    jobs += [job("scaled", base, **USED, guidance_scales=[1])]
    same = counted_once(SimpleNamespace(reference="r"), jobs)
    assert {key: same[key] for key in free} == dict.fromkeys(free, "a")
    assert {key: same[key] for key in ["r", "a", "scaled", *dear]} == {key: key for key in ["r", "a", "scaled", *dear]}
    epochs = {"max_steps": -1, "max_epochs": 2}
    by_epochs = [job("r", base), job("all", changed("trainer", epochs)), job("few", {**changed("trainer", epochs)})]
    by_epochs[2].config["data"]["init_args"]["labels"] = 0.1
    assert counted_once(SimpleNamespace(reference="r"), by_epochs)["few"] == "few"


@pytest.mark.slow
def test_a_training_is_its_steps(costs):
    """FLOPs of an image: forward and backward of the network of 107 M weights."""
    per_image = costs["score"].flops("train") / (100_000 * 128)
    assert per_image == pytest.approx(111.47e9, rel=1e-3)
    # bf16 at 800 TFLOP/s, a quarter of which is reached
    assert costs["score"].seconds("train", rates("h100")) == pytest.approx(per_image * 100_000 * 128 / 200e12, rel=1e-6)


@pytest.mark.slow
def test_sampling_is_its_evaluations(costs):
    """An assisted step evaluates the score network once, for score and classifier, and its gradient once."""
    unguided, assisted = (costs[name].flops("evaluate") for name in ("score", "assisted"))
    assert unguided == pytest.approx(50_000 * 2000 * 37.16e9, rel=0.01)
    assert assisted / unguided == pytest.approx(2.0, rel=0.1)
    assert costs["calibrating"].flops("evaluate") / 2 > unguided


@pytest.mark.slow
def test_disk_and_memory_are_of_the_size_of_what_is_kept(costs):
    weights = 4 * 107.587e6
    assert costs["score"].disk["train"] == pytest.approx(weights + 2 * 4 * weights, rel=0.01)
    assert costs["score"].memory["train"] > 5 * weights
    samples, features = 50_000 * (2 * 3 * 32**2 + 8), 50_000 * 4 * (128 + 10)
    assert costs["score"].disk["evaluate"] == pytest.approx(samples + features + 4 * 10_000 * 4, rel=1e-6)


@pytest.mark.slow
def test_the_total_is_the_sum_of_the_cells(jobs, costs):
    *rows, total = forecast(jobs, costs, {})
    for column in ("stages", "train", "evaluate", "one_gpu", "disk"):
        assert getattr(total, column) == pytest.approx(sum(getattr(row, column) for row in rows))
    assert total.memory == max(row.memory for row in rows)
    seeds = {row.name: row.seeds for row in rows}
    assert seeds == {"reference": 1, "score": 2, "assisted": 2, "calibrating": 2, "held_out": 2}
    score = next(row for row in rows if row.name == "score")
    assert score.train == 2 * costs["score"].flops("train")
    seconds = [costs["score"].seconds(part, rates("h100")) for part in ("train", "evaluate")]
    assert math.isclose(score.gpus, sum(seconds))
    assert total.one_gpu / 8 <= total.gpus < total.one_gpu


@pytest.mark.slow
def test_a_plan_shows_a_line_for_each_cell(paper, jobs, costs, capsys):
    broken = {**costs, "assisted": "no such network"}
    engine = SimpleNamespace(workers=2, count=lambda suite, shares: broken)
    show_plan(jobs, paper, engine, each_job=True)
    printed = capsys.readouterr().out
    assert all(f"\n{name} " in printed for name in [*paper.cells, "total"])
    assert "assisted/seed1/train" in printed
    assert "not counted, and not in the total: assisted: no such network" in printed
    assert "at the rates of NVIDIA H100: assumed, not measured" in printed
    assert re.search(r"^CPU: from the rates of .+: (measured|assumed, not measured)$", printed, re.MULTILINE)
    show_plan(jobs, paper, engine)
    assert "/seed" not in capsys.readouterr().out
