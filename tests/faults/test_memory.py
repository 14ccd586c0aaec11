"""Memory that runs out fails one cell, with what to do about it."""

import resource

import pytest
from faults import micro

HINT = "train with a smaller data.init_args.batch_size or accumulate it with trainer.accumulate_grad_batches"
LARGE = {"data.init_args.batch_size": 400_000}


@pytest.mark.slow
def test_a_cell_that_needs_more_memory_than_there_is_fails_with_a_hint_and_the_others_go_on(copied, whole, much_memory):
    large = {"config": "digits/supervised.yaml", "set": {**micro.SHORT, **LARGE}}
    micro.suite_file(copied, large=large)

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (9 * 2**30, 9 * 2**30))

    code, _, errors = micro.ended(micro.started(copied, preexec_fn=limit))
    assert code == 4
    (line,) = (line for line in errors.splitlines() if line.startswith("failed: large/seed0/train"))
    assert line.startswith("failed: large/seed0/train: out of memory: ")
    assert HINT in line
    assert "Traceback" not in errors
    assert micro.numbers(copied / "run") == micro.numbers(whole / "run")


@pytest.mark.slow
def test_a_fit_that_needs_more_memory_than_there_is_says_what_to_do(tmp_path, monkeypatch, much_memory):
    from benchmark import cli

    monkeypatch.chdir(micro.ROOT)
    words = [f"--{key}={value}" for key, value in {**micro.SHORT, **LARGE}.items()]

    def work():
        resource.setrlimit(resource.RLIMIT_AS, (9 * 2**30, 9 * 2**30))
        cli.main(
            ["fit", "--config=configs/digits/supervised.yaml", f"--trainer.default_root_dir={tmp_path}", *words,
             "--trainer.logger=false"]
        )  # fmt: skip

    code, told = micro.forked(work)
    assert code == 4
    assert told.startswith("error: out of memory: ")
    assert HINT in told
    assert told.count("\n") == 1
