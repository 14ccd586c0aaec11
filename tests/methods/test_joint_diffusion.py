"""Joint diffusion: the shared encoder, the head and its time, the waiting labels, and guidance through features."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from oracles import ExactClassifier, ExactDenoiser, GaussianMixture
from torch import nn

from methods.base import UNLABELED, Unsupported
from methods.diffusion.denoiser import EpsDenoiser
from methods.diffusion.feature_guidance import FeatureGuidance
from methods.diffusion.guidance import ClassifierGuidance, class_log_prob
from methods.diffusion.noise import KeyedNoise
from methods.diffusion.process import ContinuousVP, DiscreteVP
from methods.diffusion.samplers import DDIM
from methods.joint_diffusion import JointClassifier, JointDiffusion, LabeledBuffer
from methods.networks.augmentation import ClassifierAugmentation
from methods.networks.joint_head import EncoderHead, JointHead
from methods.networks.unet import UNet

CLASSES, SHAPE = 3, (1, 4, 4)


def joint(**kwargs) -> JointDiffusion:
    """A small method whose zero-initialised layers and batch norms are random too."""
    network = UNet(1, width=4, multipliers=(1, 2), blocks=1, attention=(), heads=2)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    method = JointDiffusion(network, DiscreteVP(100, "cosine"), CLASSES, **kwargs)
    for norm in (method.classifier.head.norm_in, method.classifier.head.norm_out):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
    return method.eval()


def labeled(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, *SHAPE), torch.arange(n) % CLASSES


def noisy(n: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, y = labeled(n)
    return x, torch.linspace(0.05, 0.95, n), y


# The head.

HEADS = {(3712, 10): 6.92, (3712, 100): 7.09, (1344, 10): 0.92, (1856, 10): 1.74, (5248, 40): 13.90}


@pytest.mark.parametrize(("sizes", "millions"), HEADS.items(), ids=map(str, HEADS))
def test_head_has_the_parameters_of_its_source(sizes, millions):
    with torch.device("meta"):
        head = JointHead(*sizes)
    assert round(sum(p.numel() for p in head.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize("training", [True, False])
def test_head_is_the_stack_of_layers_of_its_source_on_features_and_then_time(training):
    head = JointHead(6, CLASSES).train(training)
    stack = nn.Sequential(
        nn.Dropout(0.7), head.norm_in, head.linear, nn.LeakyReLU(0.01), nn.Dropout(0.7), head.norm_out, head.logits
    ).train(training)  # fmt: skip
    r, t = torch.randn(8, 6), torch.rand(8)
    torch.manual_seed(0)
    found = head(r, t)
    torch.manual_seed(0)
    torch.testing.assert_close(found, stack(torch.cat([r, t[:, None]], dim=1)))


def time_feature(head: JointHead, t: float) -> float:
    """The time as the head's first linear layer sees it."""
    return head.eval().norm_in(torch.tensor([[0.0] * 6 + [t]]))[0, -1].item()


def test_a_head_trained_on_clean_images_alone_sees_a_huge_time_at_any_other():
    head = JointHead(6, CLASSES).train()
    with torch.no_grad():
        for _ in range(300):
            head(torch.randn(32, 6), torch.zeros(32))
    assert time_feature(head, 0) == 0
    assert time_feature(head, 500) == pytest.approx(1.6e5, rel=0.02)  # as the level's index
    assert time_feature(head, 0.5) == pytest.approx(1.6e2, rel=0.02)  # in [0, 1]


def test_a_head_trained_at_all_times_does_not_care_about_their_unit():
    heads = [JointHead(6, CLASSES, dropout=0.0).train() for _ in range(2)]
    with torch.no_grad():
        for _ in range(300):
            r, t = torch.randn(64, 6), torch.rand(64)
            heads[0](r, t), heads[1](r, 1000 * t)
    assert time_feature(heads[0], 0.5) == pytest.approx(time_feature(heads[1], 500), abs=1e-3)
    assert abs(time_feature(heads[0], 1.0)) < 2


def test_the_classifier_reads_the_pooled_features_of_the_middle_and_of_every_skip():
    method = joint()
    x_t, t, _ = noisy()
    network, head = method.denoiser.network, method.classifier.head
    skips, middle, _ = network.encode(x_t, method.denoiser.process.log_sigma(t))
    r = method.classifier.features(x_t, t)
    assert r.shape[1] == 8 + 4 + 4 + 4 + 8 == network.pooled_channels == head.linear.in_features - 1
    torch.testing.assert_close(r, torch.cat([h.mean((2, 3)) for h in (middle, *skips)], dim=1))
    torch.testing.assert_close(method.classify(x_t, t), head(r, t))
    torch.testing.assert_close(method.classify(x_t), method.classifier(x_t, torch.full((len(x_t),), 1 / 100)))


def test_clean_images_are_told_the_first_noise_level():
    method, told = joint().train(), []
    network = method.denoiser.network
    encode = network.encode
    network.encode = lambda x, log_sigma, y=None: told.append(log_sigma) or encode(x, log_sigma, y)
    method.losses({"labeled": labeled(6)})
    method.eval().classify(labeled(6)[0])
    first = method.denoiser.process.log_sigma(torch.full((6,), method.denoiser.process.t_min))
    torch.testing.assert_close(told[0][6:], first)
    torch.testing.assert_close(told[1], first)
    assert first[0] > -5  # no level of no noise, which no training of the denoiser visits


def test_the_stand_alone_classifier_is_the_joint_one_without_a_decoder():
    method = joint()
    network, head = method.denoiser.network, method.classifier.head
    alone = EncoderHead(network, CLASSES, log_sigma=math.log(0.3)).eval()
    alone.head.load_state_dict(head.state_dict())
    x = torch.randn(6, *SHAPE)
    t = method.denoiser.process.time(-2 * torch.log(torch.full((6,), 0.3)))
    level = method.denoiser.process.log_sigma(t)
    alone.log_sigma = float(level[0])
    torch.testing.assert_close(alone.features(x), method.classifier.features(x, t))
    torch.testing.assert_close(alone(x), head(method.classifier.features(x, t), torch.zeros(6)))
    decoder = sum(weight.numel() for weight in network.decoder.parameters())
    both = sum(weight.numel() for weight in method.parameters())
    assert sum(weight.numel() for weight in alone.parameters()) == both - decoder


# The objective.


def separate_terms(method, x, y, seed) -> dict[str, torch.Tensor]:
    """Each term by passes of its own through the whole network, with the random draws of ``losses``."""
    torch.manual_seed(seed)
    t = method.denoiser.process.sample_times(len(x))
    eps = torch.randn_like(x)
    x_t, _ = method.denoiser.process.perturb(x, t, eps)
    return {
        "denoise": method.denoiser.matching_loss(x, t, eps).mean(),
        "classify": method.clean_weight * F.cross_entropy(method.classify(x), y),
        "classify_noisy": method.noisy_weight * F.cross_entropy(method.classify(x_t, t), y),
    }


@pytest.mark.parametrize("noisy_weight", [0.3, 0.0], ids=["extended", "base"])
def test_the_terms_of_one_shared_pass_are_those_of_separate_passes(noisy_weight):
    method = joint(clean_weight=0.2, noisy_weight=noisy_weight)
    x, y = labeled(12)
    expected = separate_terms(method, x, y, seed=5)
    if not noisy_weight:
        del expected["classify_noisy"]
    torch.manual_seed(5)
    found = method.losses({"labeled": (x, y)})
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected)


class Mirrored(nn.Module):
    def forward(self, x):
        return x.flip(3)


@pytest.mark.parametrize("noisy_weight", [0.3, 0.0], ids=["extended", "base"])
def test_only_the_clean_images_of_the_classifier_are_augmented_and_only_in_training(noisy_weight):
    settings = {"clean_weight": 1.0, "noisy_weight": noisy_weight, "head_dropout": 0.0}
    plain, augmented = joint(**settings), joint(**settings, augmentation=Mirrored())
    augmented.load_state_dict(plain.state_dict())
    x, y = labeled(12)

    def terms(method, x):
        torch.manual_seed(5)
        return method.losses({"labeled": (x, y)})

    torch.testing.assert_close(terms(augmented, x), terms(plain, x))
    for method in (plain, augmented):  # with the head's norms as they are, for they look at all images together
        method.training = True
    found, expected, of_mirrored = terms(augmented, x), terms(plain, x), terms(plain, x.flip(3))
    assert (of_mirrored["classify"] - expected["classify"]).abs() > 1e-6
    torch.testing.assert_close(found, expected | {"classify": of_mirrored["classify"]})


@pytest.mark.parametrize("noisy_weight", [0.02, 0.0], ids=["extended", "base"])
def test_a_training_step_encodes_once_and_decodes_the_noisy_images_alone(noisy_weight, monkeypatch):
    method, seen = joint(noisy_weight=noisy_weight).train(), []
    network = method.denoiser.network
    for part in ("encode", "decode"):
        original = getattr(network, part)

        def counted(first, *rest, part=part, original=original):
            seen.append((part, len(rest[0])))
            return original(first, *rest)

        monkeypatch.setattr(network, part, counted)
    method.losses({"labeled": labeled(6)})
    assert seen == [("encode", 12), ("decode", 6)]


def test_the_loss_reaches_encoder_decoder_and_head():
    method = joint().train()
    sum(method.losses({"labeled": labeled(16)}).values()).backward()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []


def test_without_either_weight_the_loss_is_the_denoising_error_of_all_images_and_never_sees_a_label():
    method = joint(clean_weight=0.0, noisy_weight=0.0).train()
    x, _ = labeled(12)
    torch.manual_seed(5)
    t, eps = method.denoiser.process.sample_times(12), torch.randn_like(x)
    expected = {"denoise": method.denoiser.matching_loss(x, t, eps).mean()}
    for batch in ({"labeled": (x, torch.full((12,), UNLABELED))}, {"labeled": (x[:5], None), "unlabeled": x[5:]}):
        torch.manual_seed(5)
        found = method.losses(batch)
        assert found.keys() == expected.keys()
        torch.testing.assert_close(found, expected)
    with pytest.raises(Unsupported, match="clean images only"):
        method.guidance()


@pytest.mark.filterwarnings("ignore")
def test_the_second_training_starts_from_the_first_and_leaves_the_head_as_it_was(tmp_path):
    first, second = joint(), joint(clean_weight=0.0, noisy_weight=0.0, checkpoint=str(tmp_path / "first.ckpt"))
    torch.save({"state_dict": first.state_dict()}, tmp_path / "first.ckpt")
    fit(second, 5, tmp_path)
    old, new = first.state_dict(), second.state_dict()
    assert old.keys() == new.keys()
    kept = {name for name in old if torch.equal(old[name], new[name])}
    weights = {name for name, _ in second.named_parameters()}
    head = {name for name in old if name.startswith("classifier.head.")}
    assert head <= kept  # with the statistics of its norms
    assert not (weights - head) & kept


def test_without_the_noisy_term_there_is_no_classifier_of_noisy_images_and_no_guidance():
    method = joint(noisy_weight=0.0, sampler=DDIM(5))
    assert method.noisy_process is None
    noise = KeyedNoise(0, "sample", range(2), SHAPE)
    assert method.sample(noise).shape == (2, *SHAPE)
    with pytest.raises(Unsupported, match="noisy_weight > 0"):
        method.sample(noise, torch.zeros(2, dtype=torch.long))
    assert joint().noisy_process is not None


# Few labels.


def test_labeled_images_wait_until_there_are_enough_of_them():
    buffer, counts = LabeledBuffer(), [3, 4, 2, 1, 12, 5, 5, 0, 9]
    x, y = labeled(sum(counts))
    found, start = [], 0
    for count in counts:
        new = slice(start, start + count)
        ready = buffer.admit(x[new], y[new], enough=10)
        start += count
        found.append((None if ready is None else len(ready[1]), len(buffer)))
        if ready is not None:
            rows = torch.cat([(x == image).flatten(1).all(1).nonzero()[0] for image in ready[0]])
            assert rows[:count].tolist() == list(range(new.start, new.stop))
            assert sorted(rows.tolist()) == list(range(start - len(rows), start))
            assert torch.equal(y[rows], ready[1])
    assert found == [(None, 3), (None, 7), (None, 9), (10, 0), (12, 0), (None, 5), (10, 0), (None, 0), (None, 9)]


def test_cross_entropies_are_zero_while_labels_wait_and_then_count_every_one():
    method = joint(clean_weight=0.2, noisy_weight=0.3).train()
    method.denoiser.eval(), method.classifier.eval()  # no dropout, fixed batch norms
    x, y = labeled(9)
    for step in range(2):
        rows = slice(3 * step, 3 * step + 3)
        terms = method.losses({"labeled": (x[rows], y[rows]), "unlabeled": torch.randn(5, *SHAPE)})
        assert terms["denoise"] > 0
        assert terms["classify"] == terms["classify_noisy"] == 0
    unlabeled = torch.randn(5, *SHAPE)
    torch.manual_seed(7)
    terms = method.losses({"labeled": (x[6:], y[6:]), "unlabeled": unlabeled})
    assert len(method.waiting) == 0

    ready = torch.cat([x[6:], x[3:6], x[:3]])
    torch.manual_seed(7)
    process = method.denoiser.process
    t = process.sample_times(8 + 6)
    images = torch.cat([x[6:], unlabeled, ready[3:]])
    x_t, eps = process.perturb(images, t)
    labels, rows = torch.cat([y[6:], y[3:6], y[:3]]), [0, 1, 2, *range(8, 14)]
    expected = {
        "denoise": F.mse_loss(method.denoiser.eps(x_t[:8], t[:8]), eps[:8]),
        "classify": 0.2 * F.cross_entropy(method.classify(ready), labels),
        "classify_noisy": 0.3 * F.cross_entropy(method.classify(x_t[rows], t[rows]), labels),
    }
    torch.testing.assert_close(terms, expected)


def test_the_head_moves_on_by_its_momentum_while_labels_wait():
    method = joint(head_dropout=0.0).train()
    head = method.classifier.head
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)

    def step(images: int) -> list[torch.Tensor]:
        before = [weight.detach().clone() for weight in head.parameters()]
        optimizer.zero_grad()
        x, y = labeled(images)
        batch = {"labeled": (x, y), "unlabeled": torch.randn(4, *SHAPE)} if images < 4 else {"labeled": (x, y)}
        sum(method.losses(batch).values()).backward()
        optimizer.step()
        return [weight.detach() - old for weight, old in zip(head.parameters(), before, strict=True)]

    step(8)
    first = [optimizer.state[weight]["exp_avg"].clone() for weight in head.parameters()]
    moved = step(2)  # waits: the gradient is zero, the momentum is not
    assert all(torch.equal(weight.grad, torch.zeros_like(weight)) for weight in head.parameters())
    for weight, momentum, change in zip(head.parameters(), first, moved, strict=True):
        state = optimizer.state[weight]
        torch.testing.assert_close(state["exp_avg"], 0.9 * momentum)
        expected = -1e-2 * (0.9 * momentum / (1 - 0.9**2)) / ((state["exp_avg_sq"] / (1 - 0.999**2)).sqrt() + 1e-8)
        torch.testing.assert_close(change, expected, atol=1e-6, rtol=1e-3)


def test_a_batch_of_labeled_images_alone_never_waits_and_evaluation_leaves_the_buffer_alone():
    method = joint().train()
    for n in (8, 2, 8):
        assert method.losses({"labeled": labeled(n)})["classify"] > 0
    method.losses({"labeled": labeled(2), "unlabeled": torch.randn(6, *SHAPE)})
    assert len(method.waiting) == 2
    assert method.eval().losses({"labeled": labeled(8)})["classify"] > 0
    assert len(method.waiting) == 2


class KeyedSteps(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        torch.manual_seed(trainer.global_step)


class KeepAll(Callback):
    """Saves full state and weights alone at each step, and the size of the buffer there."""

    def __init__(self, folder) -> None:
        self.folder, self.waiting = folder, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.waiting.append(len(pl_module.waiting))
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.weights", weights_only=True)


class Batches:
    """4 labeled images of 10, a function of the step alone, from the trainer's step on."""

    def __init__(self, trainer: Trainer, steps: int) -> None:
        self.trainer = trainer
        self.x = torch.randn(steps, 10, *SHAPE, generator=torch.Generator().manual_seed(0))

    def __iter__(self):
        for x in self.x[self.trainer.global_step :]:
            yield {"labeled": (x[:4], torch.arange(4) % CLASSES), "unlabeled": x[4:]}


def fit(method, steps, folder, resume=None) -> list[int]:
    """Images that wait after each step of a training."""
    keep = KeepAll(folder)
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, callbacks=[KeyedSteps(), keep], default_root_dir=folder, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    method.configure_optimizers = lambda: torch.optim.AdamW(method.parameters(), lr=1e-2)
    trainer.fit(method.train(), Batches(trainer, steps), ckpt_path=resume, weights_only=True)
    return keep.waiting


@pytest.mark.filterwarnings("ignore")
def test_waiting_images_survive_a_checkpoint_and_the_resumed_run_is_the_unbroken_one(tmp_path):
    unbroken, broken = (joint(augmentation=ClassifierAugmentation()) for _ in range(2))
    broken.load_state_dict(unbroken.state_dict())
    forgetful = copy.deepcopy(broken)
    assert fit(unbroken, 5, tmp_path) == [4, 8, 0, 4, 8]

    checkpoint = torch.load(tmp_path / "2.ckpt", weights_only=True)
    assert [v.shape for v in checkpoint["waiting"]] == [(1, 8, *SHAPE), (1, 8)]
    assert "waiting" not in torch.load(tmp_path / "3.ckpt", weights_only=True)
    assert "waiting" not in torch.load(tmp_path / "2.weights", weights_only=True)

    (tmp_path / "again").mkdir()
    assert fit(broken, 5, tmp_path / "again", resume=tmp_path / "2.ckpt") == [0, 4, 8]
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, broken.state_dict()[name]), name

    del checkpoint["waiting"]
    torch.save(checkpoint, tmp_path / "again" / "2.ckpt")
    assert fit(forgetful, 5, tmp_path / "again", resume=tmp_path / "again" / "2.ckpt") == [4, 8, 0]


# Guidance through a real network.


def test_guidance_in_x_is_classifier_guidance_through_the_head():
    method = joint(guidance_scale=2.0)
    x_t, t, y = noisy()
    guided = method.guidance()
    assert type(guided) is ClassifierGuidance
    leaf = x_t.clone().requires_grad_()
    (score,) = torch.autograd.grad(class_log_prob(method.classifier(leaf, t), y).sum(), leaf)
    alpha, sigma = method.denoiser.process.scales(t, like=x_t)
    expected = method.denoiser(x_t, t) + 2 * sigma**2 / alpha * score
    torch.testing.assert_close(guided(x_t, t, y), expected)


def released_step(method, x_t, t, y, rate):
    """Noise after the feature step as the released sampler takes it: gradients that connected maps retain."""
    network = method.denoiser.network
    skips, middle, emb = network.encode(x_t, method.denoiser.process.log_sigma(t))
    for z in (middle, *skips):
        z.retain_grad()
    logits = method.classifier.head(torch.cat([z.mean((2, 3)) for z in (middle, *skips)], dim=1), t)
    nn.CrossEntropyLoss(reduction="sum")(logits, y).backward()
    with torch.no_grad():
        return network.decode([z + rate * z.grad for z in skips], middle + rate * middle.grad, emb)


def test_a_feature_step_is_that_of_the_released_sampler():
    method = joint()
    x_t, t, y = noisy()
    expected = released_step(method, x_t, t, y, rate=6.0)
    guided = FeatureGuidance(method.denoiser, method.classifier, scale=2.0, step=3.0)
    torch.testing.assert_close(guided.eps(x_t, t, y), expected)
    alpha, sigma = method.denoiser.process.scales(t, like=x_t)
    torch.testing.assert_close(guided(x_t, t, y), (x_t - sigma * expected) / alpha)  # and is not clipped
    assert guided(x_t, t, y).abs().max() > 1


class TwoMaps(nn.Module):
    """``skip = x`` and ``middle = skip^2``: the middle is a function of the skip; decodes to their sum."""

    def encode(self, x, log_sigma):
        return [x], x.square(), None

    def decode(self, skips, middle, emb):
        return skips[0] + middle


class LinearHead(nn.Module):
    def __init__(self, weight) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, r, t):
        return r @ self.weight


def test_a_map_moves_by_its_own_path_and_by_those_through_deeper_maps():
    process, w = DiscreteVP(100, "cosine"), torch.tensor([[2.0, -1.0], [0.5, 3.0]])  # rows: middle, skip
    network = TwoMaps()
    classifier = JointClassifier(network, LinearHead(w), process)
    guided = FeatureGuidance(EpsDenoiser(network, process), classifier, scale=1.0, step=0.1)
    x, t, y = torch.randn(5, 1, 1, 1), torch.full((5,), 0.5), torch.tensor([0, 1, 0, 1, 1])
    r = torch.cat([x.square(), x], dim=1).flatten(1)
    slope = ((r @ w).softmax(1) - F.one_hot(y, 2)) @ w.T  # dL / d (pooled middle, pooled skip), others held fixed
    middle, skip = slope[:, :1, None, None], slope[:, 1:, None, None]
    expected = x + 0.1 * (skip + 2 * x * middle) + x.square() + 0.1 * middle
    torch.testing.assert_close(guided.eps(x, t, y), expected)


RULES = {"x": ClassifierGuidance, "features": lambda *parts: FeatureGuidance(*parts, step=5.0)}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


@every_rule
def test_guidance_of_an_image_does_not_depend_on_its_batch(rule):
    guided = joint(guidance_rule=rule).guidance()
    x_t, t, y = noisy()
    alone = torch.cat([guided(x_t[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(len(y))])
    torch.testing.assert_close(guided(x_t, t, y), alone, atol=1e-5, rtol=1e-4)


@every_rule
def test_scale_zero_and_no_labels_are_no_guidance(rule):
    method = joint(guidance_rule=rule)
    x_t, t, y = noisy()
    free = method.denoiser(x_t, t)
    assert not torch.allclose(method.guidance()(x_t, t, y), free, atol=1e-4)
    torch.testing.assert_close(method.guidance()(x_t, t), free)
    torch.testing.assert_close(rule(method.denoiser, method.classifier, 0.0)(x_t, t, y), free)
    method.guidance_scale = 0.0
    assert method.guidance() is method.denoiser


@every_rule
def test_guidance_differentiates_where_gradients_are_off_and_leaves_no_trace(rule):
    method = joint(guidance_rule=rule, sampler=DDIM(4), guidance_scale=1.5).requires_grad_(False)
    y = torch.tensor([0, 1])
    images = method.sample(KeyedNoise(0, "sample", range(2), SHAPE), y)
    assert not images.requires_grad
    assert not torch.allclose(images, method.sample(KeyedNoise(0, "sample", range(2), SHAPE)), atol=1e-4)
    x_t, t, _ = noisy(2)
    assert not method.guidance()(x_t.clone().requires_grad_(), t, y).requires_grad


def test_the_guidance_scale_multiplies_the_step():
    method = joint(guidance_rule=RULES["features"])
    x_t, t, y = noisy()
    method.guidance_scale = 3.0
    other = FeatureGuidance(method.denoiser, method.classifier, scale=1.0, step=15.0)
    torch.testing.assert_close(method.guidance()(x_t, t, y), other(x_t, t, y))


def test_feature_guidance_needs_a_shared_network():
    one, other = joint(), joint()
    with pytest.raises(ValueError, match="share one network"):
        FeatureGuidance(one.denoiser, other.classifier)


def test_a_copy_guides_by_its_own_weights():
    method = joint(guidance_rule=RULES["features"])
    twin = copy.deepcopy(method)
    assert twin.guidance().denoiser is twin.denoiser
    assert twin.guidance().classifier.network is twin.denoiser.network
    assert twin.guided is not method.guided


@pytest.mark.parametrize("rule", RULES)
def test_guidance_has_no_weights_of_its_own(rule):
    assert joint(guidance_rule=RULES[rule]).state_dict().keys() == joint().state_dict().keys()


# Guidance where everything is known: features are the pixels, the decoder is the exact noise.


class Pixels(nn.Module):
    """``Z = x_t``; decodes to the exact noise of a mixture."""

    def __init__(self, mixture: GaussianMixture, process: ContinuousVP) -> None:
        super().__init__()
        self.exact = ExactDenoiser(mixture, process)

    def encode(self, x, log_sigma):
        return [], x, log_sigma

    def decode(self, skips, middle, emb):
        return self.exact.eps(middle, self.exact.process.time(-2 * emb))

    def forward(self, x, log_sigma, y=None):
        return self.decode(*self.encode(x, log_sigma))


class PixelHead(nn.Module):
    """A classifier of images as a head on their pixels."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, r, t):
        return self.classifier(r[..., None, None], t)


PROCESS = ContinuousVP()


def pixel_guides(mixture, classifier, step) -> tuple[EpsDenoiser, dict[str, nn.Module]]:
    denoiser = EpsDenoiser(Pixels(mixture, PROCESS), PROCESS)
    head = JointClassifier(denoiser.network, PixelHead(classifier), PROCESS)
    return denoiser, {
        "x": ClassifierGuidance(denoiser, head, 1.0),
        "features": FeatureGuidance(denoiser, head, 1.0, step),
    }


def time_of(alpha_bar: float, n: int = 1) -> torch.Tensor:
    return PROCESS.time(torch.logit(torch.full((n,), alpha_bar, dtype=torch.float64)))


class LinearClassifier(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = torch.randn(d, CLASSES, dtype=torch.float64)

    def forward(self, x_t, t):
        return x_t.flatten(1) @ self.weight


@pytest.mark.parametrize("alpha_bar", [0.05, 0.6, 0.98])
def test_on_gaussian_data_a_feature_step_moves_the_estimate_as_classifier_guidance_does(alpha_bar):
    std, step, n = 0.5, 0.3, 40
    mixture, classifier = GaussianMixture.gaussian((4, 1, 1), std), LinearClassifier(4)
    denoiser, guides = pixel_guides(mixture, classifier, step)
    t, y = time_of(alpha_bar, n), torch.arange(n) % CLASSES
    x_t = torch.randn(n, 4, 1, 1, dtype=torch.float64)
    sigma, v = (1 - alpha_bar) ** 0.5, alpha_bar * std**2 + 1 - alpha_bar
    leaf = x_t.clone().requires_grad_()
    (score,) = torch.autograd.grad(class_log_prob(classifier(leaf, t), y).sum(), leaf)

    eps = denoiser.eps(x_t, t)
    torch.testing.assert_close(guides["features"].eps(x_t, t, y) - eps, -step * sigma / v * score)
    moves = {name: (guide(x_t, t, y) - denoiser(x_t, t)).flatten(1) for name, guide in guides.items()}
    torch.testing.assert_close(F.cosine_similarity(moves["features"], moves["x"]), torch.ones(n).double())


@pytest.mark.parametrize(("alpha_bar", "eigenvalue"), [(0.6, -0.78), (0.9, -24.0)])
def test_between_separate_modes_at_low_noise_a_step_on_pixels_moves_it_the_other_way(alpha_bar, eigenvalue):
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).view(2, 2, 1, 1)
    mixture = GaussianMixture(means, torch.tensor([0.05**2] * 2))
    denoiser, guides = pixel_guides(mixture, ExactClassifier(mixture, PROCESS), step=1e-4)
    t = time_of(alpha_bar)
    middle = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: denoiser.eps(x, t).flatten(), middle).view(2, 2)
    lowest, highest = torch.linalg.eigvalsh(jacobian).tolist()
    assert lowest == pytest.approx(eigenvalue, rel=0.01)
    assert highest > 0

    near = torch.tensor([-0.02, 0.0, 0.02], dtype=torch.float64)
    x_t = torch.stack([near, 0.3 * torch.ones(3)], dim=1).view(3, 2, 1, 1)
    t, y = time_of(alpha_bar, 3), torch.tensor([1, 0, 1])
    moves = {name: (guide(x_t, t, y) - denoiser(x_t, t)).flatten(1) for name, guide in guides.items()}
    torch.testing.assert_close(F.cosine_similarity(moves["features"], moves["x"]), -torch.ones(3).double())
