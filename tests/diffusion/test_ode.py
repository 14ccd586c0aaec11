"""Adaptive steps: a peer's solution, tolerances that are kept, and images that do not wait for one another."""

from itertools import pairwise

import pytest
import torch
from torchdiffeq import odeint

from methods.diffusion.ode import dormand_prince


def pendulums(state, place, rows):
    """Each with a frequency of its own, driven; a second part grows."""
    (x, grown), omega = state, 1.0 + rows.double()
    swing = torch.stack([x[:, 1], -(omega**2) * x[:, 0].sin() + place.cos()], dim=1)
    return swing, grown * 0.3 + x[:, 0]


def start(n: int):
    return torch.linspace(0.5, 1.5, 2 * n, dtype=torch.float64).view(n, 2), torch.ones(n, dtype=torch.float64)


def test_a_peer_takes_as_many_evaluations_to_the_same_solution():
    for row in (0, 2):
        calls = []

        def peer(place, state, row=row, calls=calls):
            calls.append(place)
            return pendulums(state, place[None], torch.tensor([row]))

        state = tuple(part[row : row + 1] for part in start(3))
        ends = torch.tensor([0.0, 4.0], dtype=torch.float64)
        expected = [part[-1] for part in odeint(peer, state, ends, rtol=1e-6, atol=1e-6, method="dopri5")]
        found, evaluations = dormand_prince(
            lambda s, t, rows, row=row: pendulums(s, t, rows + row), state, 0.0, 4.0, 1e-6, 1e-6
        )
        torch.testing.assert_close(found, tuple(expected), atol=2e-4, rtol=0)
        assert int(evaluations) == pytest.approx(len(calls), rel=0.25)


def test_the_error_falls_with_the_tolerance():
    best, _ = dormand_prince(pendulums, start(3), 0.0, 4.0, 1e-10, 1e-10)
    errors, costs = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        found, evaluations = dormand_prince(pendulums, start(3), 0.0, 4.0, tolerance, tolerance)
        errors.append(max(float((a - b).abs().max()) for a, b in zip(found, best, strict=True)))
        costs.append(int(evaluations.sum()))
    assert all(after < before / 10 for before, after in pairwise(errors))
    assert errors[-1] < 1e-5
    assert costs == sorted(costs)


def test_images_leave_when_they_have_arrived_and_are_solved_as_if_alone():
    rows_seen = []

    def rates(state, place, rows):
        rows_seen.append(rows)
        return pendulums(state, place, 4 * rows)

    together, evaluations = dormand_prince(rates, start(3), 0.0, 4.0, 1e-6, 1e-6)
    assert evaluations.tolist() == torch.cat(rows_seen).bincount().tolist()
    assert len(set(evaluations.tolist())) == 3
    for row in range(3):
        state = tuple(part[row : row + 1] for part in start(3))
        alone, cost = dormand_prince(
            lambda s, t, rows, row=row: pendulums(s, t, 4 * (rows + row)), state, 0, 4, 1e-6, 1e-6
        )
        torch.testing.assert_close(alone, tuple(part[row : row + 1] for part in together), atol=1e-12, rtol=0)
        assert int(cost) == int(evaluations[row])


def test_what_no_step_can_solve_is_an_error_and_not_endless():
    with pytest.raises(FloatingPointError, match="no step is within rtol 1e-05 and atol 1e-05"):
        dormand_prince(lambda s, t, rows: (s[0] * torch.nan,), (torch.ones(2, 1),), 0.0, 1.0, 1e-5, 1e-5)
    with pytest.raises(FloatingPointError, match="no step"):  # infinite before the end
        dormand_prince(lambda s, t, rows: (s[0] ** 2,), (torch.ones(2, 1).double(),), 0.0, 2.0, 1e-5, 1e-5)
