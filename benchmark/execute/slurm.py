"""Batch scripts of a suite's jobs for Slurm, written and not submitted."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.errors import InputError
from benchmark.execute.scheduler import Demand, demand
from benchmark.suite.class_paths import ROOT
from benchmark.suite.jobs import Job
from benchmark.system.files import write_text
from benchmark.system.surroundings import working_folder

JOB = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task={cpus}
{gpus}#SBATCH --requeue --open-mode=append
#SBATCH --signal=B:USR1@180
# {what}
cd {cwd} || exit 2
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}

# Near the time limit Slurm sends USR1: the job saves its state, and goes on when its turn comes again.
again=
trap 'again=yes; kill -TERM "$process"' USR1
trap 'kill -TERM "$process"' TERM
{command} &
process=$!
wait "$process"; code=$?
while kill -0 "$process" 2>/dev/null; do wait "$process"; code=$?; done
if [ -n "$again" ] && [ "$code" -eq 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""
SUBMIT = """\
#!/bin/bash
# Submits the jobs of suite {suite}, each after those that it needs. Options of sbatch for all of them may follow, e.g.
#   ./submit.sh --account=NAME --partition=NAME --time=24:00:00
# A job that fails takes those that need it out of the queue. What is finished is not done again: to try again, write
# these scripts anew and submit those.
set -euo pipefail
cd "$(dirname "$0")"

submit() {{ # script, dependencies, options
  local script=$1 needs=$2
  shift 2
  local id log="${{PWD//%/%%}}/%x-%j.out"
  id=$(sbatch --parsable --kill-on-invalid-dep=yes --output="$log" ${{needs:+--dependency=$needs}} "$@" "$script")
  echo "${{id%%;*}}"
}}

"""


def write_scripts(folder: Path, jobs: Sequence[Job], suite: str, arguments: Sequence[str]) -> Path:
    """Write a script for each unfinished job, one that tabulates, and ``submit.sh`` that submits them in order.

    Args:
        folder: Folder of the scripts; created.
        jobs: Jobs of the suite, needs first.
        suite: Its name.
        arguments: Command line of the run, valid in any folder.

    Returns:
        Path of ``submit.sh``.

    Raises:
        InputError: If the folder is in use or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"--emit-sbatch: {folder} is not empty; name a new folder")
        return _write(folder, [job for job in jobs if not job.finished], suite, arguments)
    except OSError as error:
        raise InputError(f"--emit-sbatch: cannot write to {folder}: {error.strerror}") from error


def _write(folder: Path, jobs: Sequence[Job], suite: str, arguments: Sequence[str]) -> Path:
    submit = folder / "submit.sh"
    lines = [SUBMIT.format(suite=suite)]
    numbers = {job.name: number for number, job in enumerate(jobs, 1)}
    width = len(str(len(jobs) + 1))

    def script(number: int, name: str, asked: Demand, command: Sequence[str], what: str, needs: str) -> None:
        file = f"{number:0{width}}-{name}.sh"
        text = JOB.format(
            name=name, cpus=asked.cpus, gpus=f"#SBATCH --gres=gpu:{asked.gpus}\n" if asked.gpus else "", what=what,
            cwd=shlex.quote(str(working_folder())), root=shlex.quote(str(ROOT)), command=shlex.join(command),
        )  # fmt: skip
        write_text(folder / file, text)
        lines.append(f'job{number}=$(submit {file} "{needs}" "$@")\n')

    run = [sys.executable, "-m", "benchmark.run", *arguments]
    for job in jobs:
        command, name = [*run, "--job", job.name], job.name.replace("/", "-")
        needs = _dependency(afterok=_known(job.needs, numbers), afterany=_known(job.after, numbers))
        script(numbers[job.name], name, demand(job, on_gpus=True), command, job.name, needs)
    needs = _dependency(afterok=list(numbers.values()))
    script(len(jobs) + 1, f"{suite}-table", Demand(0, 1), run, "all is finished by then: this tabulates", needs)
    lines.append(f'echo "submitted {len(jobs) + 1} jobs, the last is $job{len(jobs) + 1}"\n')
    write_text(submit, "".join(lines))
    for path in folder.glob("*.sh"):
        path.chmod(0o755)
    return submit


def _known(names: Sequence[str], numbers: dict[str, int]) -> list[int]:
    """Numbers of jobs, without those that are finished."""
    return [numbers[name] for name in names if name in numbers]


def _dependency(**kinds: list[int]) -> str:
    """``afterok:$job1:$job2,afterany:$job3``, with shell variables."""
    return ",".join(f"{kind}:{':'.join(f'$job{n}' for n in numbers)}" for kind, numbers in kinds.items() if numbers)
