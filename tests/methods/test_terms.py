"""Loss terms of a method are numbers with names; anything else is refused in words."""

import pytest
import torch

from methods.terms import named


def test_terms_are_passed_on_as_they_are():
    terms = {"denoise": torch.tensor(1.0), "classify": torch.tensor(2.0)}
    assert named(terms, "Mine") is terms


@pytest.mark.parametrize(
    ("terms", "got"),
    [
        (torch.tensor(1.0), "got Tensor[]"),
        (None, "got NoneType[]"),
        ({"denoise": torch.zeros(4)}, "got Tensor[4] for 'denoise'"),
        ({"denoise": 1.0}, "got float[] for 'denoise'"),
    ],
)
def test_other_returns_are_refused(terms, got):
    with pytest.raises(ValueError, match=r"Mine\.losses must return a dict of scalar tensors") as refused:
        named(terms, "Mine")
    assert got in str(refused.value)
