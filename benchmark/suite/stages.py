"""Stages of a cell. A stage is finished once its manifest, with the hashes of its files, is renamed into place."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.system.files import digest, digest_file, read_manifest, replacing, write_json
from benchmark.system.values import is_number, is_text


@dataclass(frozen=True)
class Stage:
    """A piece of work of one cell or of a run, identified by the hash of all that determines its result.

    Attributes:
        kind: ``train``, ``real``, ``classify``, ``likelihood``, ``denoise``, ``calibrate``, ``diagnose``,
            ``gradients``, ``sample``, ``features`` or ``metrics``; ``tables`` of a run's folder; the numbers of its
            samples for a shard.
        key: Hash of configuration, code and the keys of the stages it builds on; empty where it does not matter.
        network: Network that looks at images, in a stage of its features.
        scale: Guidance scale of the samples, if they have one.
    """

    kind: str
    key: str = ""
    network: str | None = None
    scale: float | None = None

    @property
    def name(self) -> str:
        """``<kind>+<network>@<scale>``, in messages and names of files."""
        return f"{self.kind}{'' if self.network is None else f'+{self.network}'}{scale_tag(self.scale)}"

    def manifest(self, folder: Path) -> Path:
        """File that records that it is finished."""
        return folder / "stages" / f"{self.name}.json"

    def recorded(self, folder: Path) -> dict[str, Any] | None:
        """Its manifest, if that has this key and the required fields; ``completed`` also checks the files."""
        manifest = read_manifest(self.manifest(folder)) or {}
        outputs, seconds = manifest.get("outputs"), manifest.get("seconds", 0)
        whole = isinstance(outputs, dict) and all(map(is_text, outputs.values())) and is_number(seconds)
        return manifest if whole and manifest.get("key") == self.key else None

    def completed(self, folder: Path) -> dict[str, Any] | None:
        """Its manifest, if the stage was finished under this key and its files are unchanged; else None."""
        manifest = self.recorded(folder)
        if manifest is None or manifest.pop("digest", "") != digest(manifest):
            return None
        try:
            intact = all(digest_file(folder / name) == sha for name, sha in manifest["outputs"].items())
        except OSError:
            return None
        return manifest if intact else None

    def wrote(self, folder: Path, name: str) -> bool:
        """Tell whether a file is as the stage left it, under whichever key."""
        outputs = (read_manifest(self.manifest(folder)) or {}).get("outputs")
        try:
            return isinstance(outputs, dict) and outputs.get(name) == digest_file(folder / name)
        except OSError:
            return False

    def complete(self, folder: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do the work and record it; ``work`` returns ``outputs`` (names of files) and further values to keep."""
        # An older result must not count as finished while the work is done again.
        self.manifest(folder).unlink(missing_ok=True)
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        manifest = {
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            **result,
            "stage": self.name,
            "key": self.key,
            "outputs": {name: digest_file(folder / name) for name in result.get("outputs", [])},
        }
        write_json(self.manifest(folder), {**manifest, "digest": digest(manifest)})
        return manifest

    def adopt(self, folder: Path, other: Path) -> bool:
        """Copy the result of the same stage from another folder; whether it is finished there."""
        manifest = None if other == folder else self.completed(other)
        if manifest is None:
            return False
        self.manifest(folder).unlink(missing_ok=True)
        for name in manifest["outputs"]:
            with replacing(folder / name) as temporary:
                shutil.copyfile(other / name, temporary)
        write_json(self.manifest(folder), {**manifest, "digest": digest(manifest)})
        return True


def scale_tag(scale: float | None) -> str:
    """Suffix of files and stages for a guidance scale: ``@3``, or nothing for unconditional samples."""
    return "" if scale is None else f"@{scale:g}"
