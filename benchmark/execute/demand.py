"""What a job asks a machine for, from its resolved configuration."""

from dataclasses import dataclass
from typing import Any

from benchmark.plan import Job


@dataclass(frozen=True)
class Demand:
    """Devices of one machine.

    Attributes:
        gpus: Number of GPUs.
        cpus: Number of cores.
    """

    gpus: int
    cpus: int

    def __str__(self) -> str:
        return f"{self.gpus} GPUs and {self.cpus} CPUs"

    def fits(self, other: "Demand") -> bool:
        """Whether a machine with ``other`` has it."""
        return self.gpus <= other.gpus and self.cpus <= other.cpus


def demand(job: Job, on_gpus: bool) -> Demand:
    """A training asks for the devices of its trainer, anything else for one; each device for a core.

    On a GPU also for a core for each process that reads files beside it.

    Args:
        job: The job.
        on_gpus: Whether there are GPUs; a job whose ``trainer.accelerator`` is ``cpu`` asks for none all the same.
    """
    trainer = job.config.get("trainer") or {}
    accelerator = trainer.get("accelerator", "auto")
    devices = _number(trainer.get("devices", 1)) if job.part == "train" else 1
    if accelerator == "cpu" or (accelerator == "auto" and not on_gpus):
        return Demand(0, devices)
    readers = (job.config.get("data") or {}).get("init_args", {}).get("workers") or 0
    return Demand(devices, devices * (1 + readers))


def _number(devices: Any) -> int:
    """How many devices ``trainer.devices`` names; ``auto`` and -1 are as many as a job is given, which is one."""
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    try:
        return max(1, int(devices))
    except ValueError:
        return 1
