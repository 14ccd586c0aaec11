"""Pseudo-labels, FixMatch and Mean Teacher, held against their papers' formulas written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

from methods.baselines.mean_teacher import MeanTeacher
from methods.baselines.pseudo_labels import FixMatch, PartCosine, PseudoLabel
from methods.terms import confident_cross_entropy


class Linear(nn.Sequential):
    """Logits of two pixels."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(2, 3))


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def batch(labeled: int = 4, unlabeled: int = 6):
    x, u = torch.randn(labeled, 1, 1, 2), torch.randn(unlabeled, 1, 1, 2)
    return {"labeled": (x, torch.arange(labeled) % 3), "unlabeled": u}


def test_only_confident_guesses_count_and_the_mean_is_over_all():
    guides = torch.tensor([[0.96, 0.04], [0.94, 0.06], [0.01, 0.99]]).log()
    logits = torch.tensor([[0.3, 0.7], [0.2, 0.8], [0.4, 0.6]]).log().requires_grad_()
    loss = confident_cross_entropy(logits, guides, 0.95)
    assert loss.item() == pytest.approx(-(math.log(0.3) + math.log(0.6)) / 3, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.tensor([[-0.7, 0.7], [0, 0], [0.4, -0.4]]) / 3)


def test_no_gradient_reaches_the_network_from_guesses_below_the_threshold():
    method = FixMatch(Linear(), nn.Identity(), nn.Identity(), confidence=1.0).train()
    method.losses(batch())["pseudo_label"].backward()
    assert all(not weight.grad.any() for weight in method.parameters())


def test_no_gradient_reaches_the_view_that_guesses():
    guides = torch.tensor([[9.0, 0.0]], requires_grad=True)
    loss = confident_cross_entropy(torch.zeros(1, 2, requires_grad=True), guides, 0.5)
    assert torch.autograd.grad(loss, guides, allow_unused=True) == (None,)


def test_the_weight_of_pseudo_labels_is_lees():
    """``0``, then ``(t - T1) / (T2 - T1) a``, then ``a``."""
    method = PseudoLabel(Linear(), weight=3.0, ramp_start=100, ramp_end=600)
    assert [method.current_weight(t) for t in (0, 100, 350, 600, 900)] == [0, 0, 1.5, 3, 3]
    assert PseudoLabel(Linear(), weight=3.0).current_weight(0) == 3
    with pytest.raises(ValueError, match="ramp_end must be at least ramp_start = 5, got 4"):
        PseudoLabel(Linear(), ramp_start=5, ramp_end=4)


def test_a_pseudo_label_is_the_networks_own():
    images, method = batch(), PseudoLabel(Linear(), confidence=0.0, weight=2.0).train()
    found, logits = method.losses(images), method.classify(images["unlabeled"])
    torch.testing.assert_close(found["pseudo_label"], -2 * logits.log_softmax(1).amax(1).mean())


def test_fixmatch_guesses_on_the_weak_view_and_learns_on_the_strong_one():
    (x, y), u = (images := batch()).values()
    method = FixMatch(Linear(), Times(2.0), Times(5.0), confidence=0.5, weight=3.0).train()
    network = method.classifier.network
    q = network(2 * u).softmax(1)
    each = F.cross_entropy(network(10 * u), q.argmax(1), reduction="none")
    found = method.losses(images)
    torch.testing.assert_close(found["pseudo_label"], 3 * each[q.amax(1) >= 0.5].sum() / len(u))
    torch.testing.assert_close(found["classify"], F.cross_entropy(network(2 * x), y))


@pytest.mark.parametrize("kind", [PseudoLabel, lambda n: FixMatch(n, Times(2.0), Times(5.0)), MeanTeacher])
def test_validation_reads_images_as_they_are(kind):
    images, method = batch(), kind(Linear()).eval()
    (x, y) = images["labeled"]
    torch.testing.assert_close(method.losses(images), {"classify": F.cross_entropy(method.classify(x), y)})


def test_consistency_is_the_mean_squared_difference_of_the_two_s_probabilities():
    images, method = batch(), MeanTeacher(Linear(), noise=0.0, weight=7.0, ramp=0).train()
    nn.init.normal_(method.student.network[1].weight)
    every = torch.cat([images["labeled"][0], images["unlabeled"]])
    p, q = (part(every).softmax(1) for part in (method.student, method.classifier))
    found = method.losses(images)
    torch.testing.assert_close(found["consistency"], 7 * (p - q).square().mean())
    torch.testing.assert_close(found["classify"], F.cross_entropy(p[:4].log(), images["labeled"][1]))
    sum(found.values()).backward()
    assert all(weight.grad is None for weight in method.classifier.parameters())
    assert all(weight.grad.any() for weight in method.student.parameters())


def test_teacher_and_student_have_noise_of_their_own():
    method = MeanTeacher(Linear(), noise=0.5, ramp=0).train()
    assert method.losses(batch())["consistency"] > 0  # at equal weights


def test_the_weight_of_consistency_rises_as_in_the_paper():
    method = MeanTeacher(Linear(), weight=100.0, ramp=40)
    expected = [100 * math.exp(-5), 100 * math.exp(-1.25), 100, 100]
    assert [method.current_weight(t) for t in (0, 20, 40, 99)] == pytest.approx(expected)


class Watched(MeanTeacher):
    """Keeps the student's weights after each step, and learns from what the loader gives it."""

    def on_train_start(self) -> None:
        self.students = []

    def on_train_batch_end(self, *_) -> None:
        self.students.append([weight.detach().clone() for weight in self.student.parameters()])

    def configure_optimizers(self):
        return torch.optim.SGD([weight for weight in self.parameters() if weight.requires_grad], lr=0.5)


def test_the_teacher_is_the_moving_average_of_the_student_in_a_training(tmp_path):
    """``a teacher + (1 - a) student`` after each step, ``a = min(1 - 1/n, .5 in the ramp of 3 steps, .8 after)``."""
    method = Watched(Linear(), ramp=3, early_decay=0.5, decay=0.8)
    trainer = Trainer(
        max_steps=6,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(method, DataLoader([batch()] * 6, batch_size=None))
    teacher = None
    for decay, student in zip([0, 0.5, 0.5, 0.75, 0.8, 0.8], method.students, strict=True):
        teacher = [decay * old + (1 - decay) * new for old, new in zip(teacher or student, student, strict=True)]
    assert (method.students[0][0] - method.students[-1][0]).abs().max() > 0.01
    torch.testing.assert_close([weight.detach() for weight in method.classifier.parameters()], teacher)


def test_fixmatch_s_rate_falls_along_seven_sixteenths_of_a_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.03)
    schedule, rates = PartCosine(optimizer, steps=8), []
    for _ in range(9):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.03 * math.cos(7 * math.pi * k / (16 * 8)) for k in range(9)])
