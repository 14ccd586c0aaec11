"""Checks of a Ray cluster's nodes: folders and source."""

import os
from dataclasses import dataclass
from pathlib import Path

from benchmark.suite.class_paths import PACKAGES, ROOT
from benchmark.system.files import digest, digest_file


def source_digest() -> str:
    """Hash of the running source."""
    files = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    return digest({str(path.relative_to(ROOT)): digest_file(path) for path in files})


@dataclass(frozen=True)
class Place:
    """Requirements of every node: the driver's folders at the same paths, and its source.

    Attributes:
        out: Folder of the run.
        mark: Name of a file that the driver wrote there.
        cwd: The driver's working folder, the base of relative paths in configurations.
        folders: Environment variables and the folders that they name.
        source: Hash of the source.
    """

    out: Path
    mark: str
    cwd: Path
    folders: tuple[tuple[str, Path], ...]
    source: str

    def missing(self) -> str:
        """First missing requirement of this node; empty if it has all."""
        node = os.uname().nodename
        if not (self.out / self.mark).is_file():
            return f"node {node} does not see the run's folder {self.out}; choose --out DIR on a shared file system"
        for name, folder in (("working folder", self.cwd), *self.folders):
            if not folder.is_dir():
                return f"node {node} has no {name} {folder}; it must be on a file system that all nodes share"
        if source_digest() != self.source:
            return f"node {node} has other source in {ROOT}; give all nodes the same checkout"
        return ""


def probe_node(place: Place) -> str:
    return place.missing()
