"""Classes of folders of samples, read from the folders' names."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import InputError, shown

DIGITS_OF_PARTS = 5
"""Least digits of folder names that are parts of a large set (00000, 001000), if no class number has as many."""


@dataclass(frozen=True)
class Classes:
    """Names of classes.

    Attributes:
        of: Name of the data set.
        named: Class number by name; several names share a number where a task joins classes of the data set.
        count: Number of classes.
    """

    of: str
    named: Mapping[str, int]
    count: int

    def of_folders(self, path: Path, folders: Collection[str]) -> tuple[dict[str, int] | None, str]:
        """The class of each folder, or None if they are parts of one set without classes; and how they were read.

        Folders have the names of classes, or else class numbers. If all names of classes are numbers, a folder's number
        is such a name and not a place among the names.

        Args:
            path: Parent of the folders, for messages.
            folders: Their names.

        Raises:
            InputError: If a folder is no class.
        """
        if self.named.keys() >= set(folders):
            return {folder: self.named[folder] for folder in folders}, self._told()
        if all(map(str.isdecimal, folders)):
            longest = max(map(len, (str(self.count - 1), *filter(str.isdecimal, self.named))))
            if min(map(len, folders)) >= max(DIGITS_OF_PARTS, longest + 1):
                return None, f"folders such as {shown(min(folders), 30)} are parts of one set without classes"
        known = self._by_number()
        numbers = [folder for folder in folders if folder.isdecimal() and int(folder) in known]
        if len(numbers) < len(folders):
            other = next((folder for folder in folders if folder not in (*numbers, *self.named)), None)
            wrong = "some folders are" if other is None else f"folder {shown(repr(other), 60)} is"
            of = "called by number" if other is None else f"no class of {self.of}"
            by_number = "" if self._called_by_numbers else f" or all by number (0 to {self.count - 1})"
            raise InputError(f"{path}: {wrong} {of}; name all folders by class ({self._some()}){by_number}")
        told = self._told() if self._called_by_numbers else f"folders are class numbers (0 is {next(iter(self.named))})"
        return {folder: known[int(folder)] for folder in folders}, told

    @property
    def _called_by_numbers(self) -> bool:
        return all(map(str.isdecimal, self.named))

    def _by_number(self) -> dict[int, int]:
        if self._called_by_numbers:
            return {int(name): k for name, k in self.named.items()}
        return {k: k for k in range(self.count)}

    def _told(self) -> str:
        moved = next(((name, k) for name, k in self.named.items() if name.isdecimal() and int(name) != k), None)
        if moved is not None:
            return f"folders are class names (folder {moved[0]} is the class {moved[0]}, which has number {moved[1]})"
        return "folders are class numbers" if self._called_by_numbers else "folders are class names"

    def _some(self) -> str:
        names = [shown(name, 20) for name in list(self.named)[:3]]
        return ", ".join(names) + (", ..." if len(self.named) > 3 else "")
