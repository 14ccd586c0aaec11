"""Stages of a cell: finished once its manifest, with the hashes of what it wrote, has been renamed into place."""

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
    """A piece of work of one cell, identified by the hash of all that determines its result.

    Attributes:
        kind: ``train``, ``real``, ``classify``, ``likelihood``, ``denoise``, ``diagnose``, ``gradients``, ``sample``,
            ``features`` or ``metrics``; the numbers of its samples for a shard.
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
        """Where its completion is recorded."""
        return folder / "stages" / f"{self.name}.json"

    def recorded(self, folder: Path) -> dict[str, Any] | None:
        """Its manifest, if that is of this key and says what it must; whether it is true, ``completed`` sees."""
        manifest = read_manifest(self.manifest(folder)) or {}
        outputs, seconds = manifest.get("outputs"), manifest.get("seconds", 0)
        whole = isinstance(outputs, dict) and all(map(is_text, outputs.values())) and is_number(seconds)
        return manifest if whole and manifest.get("key") == self.key else None

    def completed(self, folder: Path) -> dict[str, Any] | None:
        """Its manifest, if the stage was finished under this key and nothing was changed since; else None."""
        manifest = self.recorded(folder)
        if manifest is None or manifest.pop("digest", "") != digest(manifest):
            return None
        try:
            intact = all(digest_file(folder / name) == sha for name, sha in manifest["outputs"].items())
        except OSError:
            return None
        return manifest if intact else None

    def complete(self, folder: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do the work and record it. ``work`` returns ``outputs`` (file names) and whatever else is worth keeping."""
        # Until it is done again, an older result of this stage must not pass for finished.
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
        """Take the result of the same stage from another folder, if it is finished there; whether it was."""
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
