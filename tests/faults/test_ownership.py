"""One folder, one writer."""

import json
import os
import shutil
import subprocess

import pytest
from faults import micro

from benchmark import cli
from benchmark.errors import WriteError
from benchmark.system.lock import owned


def left_behind(folder, **changed):
    """What a holder that was killed leaves: its name, and a lock file that no one holds."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    folder.mkdir()
    (folder / ".lock").touch()
    owner = {"pid": gone.pid, "host": os.uname().nodename, "since": "2026-01-02 03:04:05", **changed}
    (folder / "owner.json").write_text(json.dumps(owner))
    return f"process {gone.pid} on {owner['host']} since 2026-01-02 03:04:05"


@pytest.mark.parametrize(
    ("changed", "more"),
    [({}, ""), ({"boot": "another"}, ", before this machine was started anew"), ({"host": "elsewhere"}, "")],
    ids=["dead process", "other boot", "other machine"],
)
def test_the_folder_of_a_killed_process_is_taken_over_with_a_note(tmp_path, capsys, changed, more):
    by = left_behind(tmp_path / "run", **changed)
    with owned(tmp_path / "run", "--out"):
        assert json.loads((tmp_path / "run/owner.json").read_text())["pid"] == os.getpid()
    assert capsys.readouterr().err == (
        f"note: {tmp_path / 'run'} is taken over from {by}{more}, which ended without letting it go\n"
    )
    assert not (tmp_path / "run/owner.json").exists()


def test_a_name_that_cannot_be_read_keeps_no_one_out(tmp_path, capsys):
    left_behind(tmp_path / "run")
    (tmp_path / "run/owner.json").write_text("{")
    with owned(tmp_path / "run", "--out"):
        pass
    assert "taken over from process ? on ? since ?" in capsys.readouterr().err


def test_a_folder_that_is_deleted_or_replaced_is_held_no_more(tmp_path):
    with owned(tmp_path / "run", "--out") as check:
        check()
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(WriteError, match="run is gone: it was deleted or moved while the run went on"):
            check()
        (tmp_path / "run").mkdir()
        (tmp_path / "run/owner.json").write_text("of another run")
        with pytest.raises(WriteError, match="is gone"):
            check()
    assert (tmp_path / "run/owner.json").read_text() == "of another run"


@pytest.mark.slow
def test_a_run_whose_folder_is_deleted_ends_and_says_so(tmp_path):
    micro.suite_file(tmp_path)
    process = micro.started(tmp_path)
    micro.until(lambda: list((tmp_path / "run").glob("*/seed*/attempt/*.progress.json")), process)
    shutil.rmtree(tmp_path / "run")
    code, _, errors = micro.ended(process)
    gone = f"{tmp_path / 'run'} is gone: it was deleted or moved while the run went on, which ends here"
    assert (code, errors) == (4, f"error: {gone}\n")


def test_a_second_training_in_a_folder_is_refused_naming_the_first(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(micro.ROOT)
    with owned(tmp_path, "--trainer.default_root_dir"), pytest.raises(SystemExit) as end:
        cli.main(["fit", "--config=configs/digits/supervised.yaml", f"--trainer.default_root_dir={tmp_path}"])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path} is in use by process {os.getpid()} on {os.uname().nodename} since 20")
    assert told.endswith("; wait for it or choose another folder with --trainer.default_root_dir\n")
    assert not (tmp_path / "checkpoints").exists()
