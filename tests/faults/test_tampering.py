"""Files of a finished run that are changed afterwards: what depends on them is done again, with the same numbers."""

import json

import numpy as np
import pytest
from faults import micro

from benchmark.errors import InputError
from benchmark.execute.job import carry_out

SCORE, GAUSSIAN, REFERENCE = (
    f"run/{cell}" for cell in ("score_model/seed0", "gaussian/seed0", "reference_classifier/seed1000")
)


def edit_a_number(path):
    """As one who knows the format would."""
    path.write_text(path.read_text().replace("0", "1", 1))


@pytest.mark.slow
def test_damaged_samples_features_answers_and_records_are_made_again(copied, whole):
    micro.truncate(copied / SCORE / "samples.npz")
    micro.flip_a_byte(copied / GAUSSIAN / "features+reference.npz")
    micro.flip_a_byte(copied / REFERENCE / "logits.npz")
    for cell, damage in ((SCORE, micro.flip_a_byte), (GAUSSIAN, micro.truncate), (REFERENCE, micro.flip_a_byte)):
        damage(copied / cell / "record.json")
    assert micro.carried_out(copied) == [
        "reference_classifier/classify", "reference_classifier/metrics", "score_model/sample", "score_model/metrics",
        "gaussian/features+reference", "gaussian/metrics",
    ]  # fmt: skip
    assert micro.numbers(copied / "run") == micro.numbers(whole / "run")
    assert micro.carried_out(copied) == []


@pytest.mark.slow
def test_damaged_weights_are_trained_again(copied, whole):
    micro.flip_a_byte(copied / SCORE / "checkpoints/final.ckpt")
    micro.truncate(copied / REFERENCE / "real.npz")
    assert micro.carried_out(copied) == ["reference_classifier/real", "score_model/train"]
    assert micro.numbers(copied / "run") == micro.numbers(whole / "run")


def test_a_number_changed_by_hand_in_a_record_or_manifest_is_not_used(copied, whole):
    edit_a_number(copied / SCORE / "record.json")
    manifest = copied / GAUSSIAN / "stages/likelihood.json"
    found = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**found, "seconds": found["seconds"] + 1}))
    assert micro.carried_out(copied) == ["score_model/metrics", "gaussian/likelihood"]
    assert micro.numbers(copied / "run") == micro.numbers(whole / "run")


def test_given_samples_that_are_written_anew_after_a_run_was_planned_are_not_measured_as_those_of_the_plan(copied):
    """Their maker may run again while a reference trains."""
    path = copied / "mine.npz"

    def draw(seed):
        np.savez(path, images=np.random.default_rng(seed).integers(0, 17, (16, 8, 8), np.uint8))

    draw(1)
    suite, work = micro.jobs(copied, mine={"samples": str(path)})
    job = next(job for job in work if job.cell.name == "mine")
    draw(2)
    with pytest.raises(InputError, match=r"mine\.npz was changed since this run was planned; start the run again"):
        carry_out(job, suite.protocol, lambda *_: None, lambda: False)
    assert job.stage("sample").completed(job.folder) is None
    draw(1)
    carry_out(job, suite.protocol, lambda *_: None, lambda: False)
    assert job.finished


def test_a_changed_setting_does_again_what_follows_from_it_alone(copied):
    sampler = "model.init_args.sampler.init_args.steps"
    cell = micro.SUITE["cells"]["score_model"]
    changed = {**cell, "set": {**cell["set"], sampler: 3}}
    done = micro.carried_out(copied, score_model=changed)
    assert done == [f"score_model/{stage}" for stage in ("sample", "features+reference", "metrics")]
