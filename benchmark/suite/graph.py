"""Graph of needs: which names, of cells or jobs, need which others."""

from collections.abc import Collection, Iterable, Mapping
from graphlib import TopologicalSorter

Needs = Mapping[str, Collection[str]]
"""Names that each name needs."""


def order(needs: Needs) -> list[str]:
    """Names in an order in which each comes after those that it needs.

    Raises:
        graphlib.CycleError: If names need one another in a circle.
    """
    return [*TopologicalSorter(needs).static_order()]


def closure(needs: Needs, names: Iterable[str]) -> set[str]:
    """Names, and all that they need directly or through others."""
    found = set(names)
    for name in reversed(order(needs)):  # before those that it needs
        if name in found:
            found.update(needs.get(name, ()))
    return found
