"""What the classes of each data set are called."""

import pytest

from datamodules.base import stand_ins
from datamodules.celeba import CelebA
from datamodules.digits import Digits
from datamodules.domains import LabeledSource
from datamodules.imagenet import ImageNet
from datamodules.mnist import MNIST, FashionMNIST
from datamodules.splits import LabelsPerClass, PositiveUnlabeled
from datamodules.toys import TwoMoons, UniformCube
from datamodules.vision import CIFAR10, CIFAR100, SVHN, USPS


def stand_in(kind, **arguments):
    with stand_ins():
        return kind(**arguments)


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100, SVHN, USPS, MNIST, FashionMNIST, CelebA, TwoMoons, UniformCube])
def test_every_class_has_a_name_of_its_own(kind):
    names = stand_in(kind).class_names
    assert len(names) == len(set(names)) == kind.data_classes
    assert all(isinstance(name, str) and name for name in names)


def test_names_are_those_that_the_makers_gave():
    assert stand_in(CIFAR10).class_names[9] == "truck"
    assert [stand_in(CIFAR100).class_names[k] for k in (0, 51, 99)] == ["apple", "mushroom", "worm"]
    assert [stand_in(FashionMNIST).class_names[k] for k in (0, 6, 9)] == ["T-shirt/top", "shirt", "ankle boot"]
    assert stand_in(CelebA, attribute="Eyeglasses").class_names == ["not Eyeglasses", "Eyeglasses"]
    assert stand_in(MNIST).class_names == [str(digit) for digit in range(10)]
    assert stand_in(ImageNet).class_names[999] == "999"  # its folders' names, once they are read
    source, target = stand_in(SVHN, resize=28), stand_in(MNIST, rgb=True)
    assert LabeledSource(source, target).class_names == source.class_names


def test_a_task_names_its_own_classes():
    odd = Digits(labels=PositiveUnlabeled(positive=[1, 3, 5, 7, 9], count=20))
    assert odd.task_class_names == ["the rest", "1, 3, 5, 7, 9"]
    assert Digits(labels=LabelsPerClass(3)).task_class_names == odd.class_names == list("0123456789")
    animals = stand_in(CIFAR10, labels=PositiveUnlabeled(positive=[3, 5], count=20))
    assert animals.task_class_names == ["the rest", "cat, dog"]
