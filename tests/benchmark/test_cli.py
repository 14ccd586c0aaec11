"""The command line: its commands, its help, and one line for everything that cannot be used."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from benchmark import cli
from benchmark.errors import InputError
from benchmark.training import saved_config as kept_config
from benchmark.training.build import build, run
from benchmark.training.checkpoints import FINAL, checkpoints
from runs import command

CONFIGS = Path(__file__).parents[2] / "configs" / "digits"
SUPERVISED = CONFIGS / "supervised.yaml"
TINY = ("--trainer.max_steps=3", "--trainer.enable_progress_bar=false", "--trainer.logger=false")


def carried_out(*words):
    """The object behind a command that went well."""
    return run([str(word) for word in words], stop=lambda: False)


@pytest.fixture
def edited(tmp_path):
    """A copy of a shipped configuration with dotted keys set."""

    def edited(source=SUPERVISED, **settings):
        for file in CONFIGS.glob("*.yaml"):  # a configuration includes those beside it
            shutil.copy(file, tmp_path)
        value = yaml.safe_load(source.read_text())
        for key, setting in settings.items():
            *path, last = key.split(".")
            place = value
            for part in path:
                place = place[part]
            place[last] = setting
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(value))
        return path

    return edited


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a training of three steps."""
    folder = tmp_path_factory.mktemp("trained")
    assert command("fit", "--config", SUPERVISED, f"--trainer.default_root_dir={folder}", *TINY) == 0
    return folder


# What works


def test_a_fit_leaves_its_final_weights_and_no_resume_points(trained):
    assert [path.name for path in (trained / "checkpoints").iterdir()] == [FINAL]


def test_a_fit_leaves_its_configuration_which_reads_as_it_was_meant(trained, capsys):
    words = (f"--trainer.default_root_dir={trained}", *TINY, "--print_config")
    assert command("fit", "--config", SUPERVISED, *words) == 0
    meant = yaml.safe_load(capsys.readouterr().out)
    network = meant["model"]["init_args"]["network"]["init_args"]
    network |= {"in_channels": 1, "classes": 10}  # filled in from the data when it was built
    assert command("fit", "--config", trained / "config.yaml", "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out) == meant


def test_a_prediction_is_a_file_of_probabilities_and_labels(trained, tmp_path, capsys):
    words = ("--config", SUPERVISED, f"--ckpt_path={trained / 'checkpoints' / FINAL}", *TINY)
    done = carried_out("predict", *words, f"--trainer.default_root_dir={tmp_path}")
    assert capsys.readouterr().out.splitlines()[-1] == f"predictions: {tmp_path / 'predictions.npz'}"
    with np.load(tmp_path / "predictions.npz") as found:
        probabilities, labels = torch.from_numpy(found["probabilities"]), torch.from_numpy(found["labels"])
    assert torch.equal(labels, done.datamodule.images("test")[1])
    x = torch.cat([batch["labeled"][0] for batch in done.datamodule.test_dataloader()])
    with torch.no_grad():
        torch.testing.assert_close(probabilities, done.model.eval().classify(x).softmax(1))


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_the_configuration_of_a_fit_serves_the_other_commands(trained, subcommand, tmp_path):
    checkpoint = trained / "checkpoints" / FINAL
    words = ("--config", trained / "config.yaml", f"--trainer.default_root_dir={tmp_path}", f"--ckpt_path={checkpoint}")
    done = carried_out(subcommand, *words)
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in done.model.state_dict().items())
    if subcommand != "predict":
        part = {"validate": "val", "test": "test"}[subcommand]
        x, y = next(iter(getattr(done.datamodule, f"{part}_dataloader")()))["labeled"]
        with torch.no_grad():
            right = (done.model.eval().classify(x).argmax(1) == y).float().mean()
        torch.testing.assert_close(done.trainer.callback_metrics[f"{part}/accuracy"], right)


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_without_a_checkpoint_the_weights_are_those_beside_the_configuration(trained, subcommand, tmp_path, capsys):
    words = ("--config", trained / "config.yaml", f"--trainer.default_root_dir={tmp_path}")
    done = carried_out(subcommand, *words)
    checkpoint = trained / "checkpoints" / FINAL
    assert capsys.readouterr().err == f"note: the weights are those of {checkpoint}\n"
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in done.model.state_dict().items())


def test_without_a_checkpoint_the_folder_that_is_named_has_the_weights(trained, capsys):
    done = carried_out("validate", "--config", SUPERVISED, f"--trainer.default_root_dir={trained}", *TINY)
    assert f"those of {trained / 'checkpoints' / FINAL}" in capsys.readouterr().err
    weights = torch.load(trained / "checkpoints" / FINAL, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in done.model.state_dict().items())


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_random_weights_are_no_answer(tmp_path, refusal, subcommand):
    message = refusal(subcommand, "--config", SUPERVISED, f"--trainer.default_root_dir={tmp_path}", *TINY)
    missing = tmp_path / "checkpoints" / FINAL
    assert message == f"{subcommand} needs trained weights, there is no {missing}; give --ckpt_path=FILE"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict", "sample"])
def test_every_command_has_help_and_prints_its_configuration(capsys, subcommand):
    assert command(subcommand, "--config", SUPERVISED, "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"] == "methods.supervised.Supervised"
    assert command(subcommand, "--help") == 0
    shown = capsys.readouterr().out
    assert all(f"--{option}" in shown for option in ("config", "model", "data", "seed_everything", "ckpt_path", "ema"))


def test_the_help_of_the_command_line_names_its_commands(capsys):
    assert command("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("fit", "validate", "test", "predict", "sample"))


def test_the_help_of_a_method_shows_what_its_docstring_says(capsys):
    assert command("fit", "--model.help=methods.supervised.Supervised") == 0
    assert "Mass spread evenly over the classes" in capsys.readouterr().out


def test_a_printed_configuration_gives_itself_again(capsys, tmp_path):
    assert command("fit", "--config", SUPERVISED, "--model.label_smoothing=0.25", "--print_config") == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["model"]["init_args"]["label_smoothing"] == 0.25
    (tmp_path / "printed.yaml").write_text(printed)
    assert command("fit", "--config", tmp_path / "printed.yaml", "--print_config") == 0
    assert capsys.readouterr().out == printed


# A trial


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_a_trial_leaves_no_file_behind_and_replaces_none(trained, tmp_path, subcommand):
    folder = tmp_path / "run"
    words = (subcommand, "--config", SUPERVISED, "--trainer.fast_dev_run=2", *TINY[1:2])
    checkpoint = () if subcommand == "fit" else (f"--ckpt_path={trained / 'checkpoints' / FINAL}",)
    assert command(*words, *checkpoint, f"--trainer.default_root_dir={folder}") == 0
    assert not folder.exists()
    shutil.copytree(trained, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert command(*words, *checkpoint, f"--trainer.default_root_dir={folder}") == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_trial_that_is_asked_to_stop_ends(tmp_path):
    words = ("fit", "--config", SUPERVISED, "--trainer.fast_dev_run=9", f"--trainer.default_root_dir={tmp_path}")
    with pytest.raises(cli.Stopped, match="saves nothing"):
        run([str(word) for word in (*words, TINY[1])], stop=lambda: True)
    assert not list(tmp_path.iterdir())


# The bar


def test_the_bar_counts_the_steps_of_the_training(tmp_path, capsys):
    words = ("fit", "--config", SUPERVISED, f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=13")
    assert command(*words, "--trainer.accumulate_grad_batches=2") == 0
    shown = capsys.readouterr().out
    assert "Step" in shown
    assert "13/13" in shown
    assert "Epoch" not in shown
    assert "v_num" not in shown


def test_a_bar_of_the_users_takes_the_place_of_ours(tmp_path, capsys):
    words = ("fit", "--config", SUPERVISED, f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=1")
    assert command(*words, "--trainer.callbacks+=TQDMProgressBar") == 0
    assert "Epoch 0" in capsys.readouterr().out


# A checkpoint supplies weights and state, never settings


def test_settings_come_from_the_command_line_not_from_the_checkpoint(trained, tmp_path, evil):
    saved = torch.load(trained / "checkpoints" / FINAL, weights_only=True)
    saved["hyper_parameters"] = {"_class_path": "evilmod.Net", "label_smoothing": 0.9, "guidance_scale": 7.0}
    torch.save(saved, tmp_path / "crafted.ckpt")
    words = ("--config", SUPERVISED, "--model.label_smoothing=0.125", f"--ckpt_path={tmp_path / 'crafted.ckpt'}", *TINY)
    assert carried_out("validate", *words).model.label_smoothing == 0.125


def test_a_changed_setting_holds_when_training_is_resumed(tmp_path):
    words = ["fit", "--config", SUPERVISED, f"--trainer.default_root_dir={tmp_path}", "--checkpoint_every=1", *TINY]
    asked = iter([False, True])
    with pytest.raises(cli.Stopped):
        run([str(word) for word in words], stop=lambda: next(asked))
    *_, point = checkpoints(tmp_path / "checkpoints")
    elsewhere = (f"--trainer.default_root_dir={tmp_path / 'other'}", f"--ckpt_path={point}")
    done = carried_out(*words, *elsewhere, "--model.label_smoothing=0.125")
    assert done.model.label_smoothing == 0.125
    assert done.trainer.global_step == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("--model.label_smoothing=0.125", "model.init_args.label_smoothing is 0.05, not 0.125, in its config.yaml"),
        ("--seed_everything=5", "seed_everything is 0, not 5, in"),
        ("--ema.decay=0.5", "ema.decay is "),
        ("--data.labels=datamodules.splits.LabelFraction", "data.init_args.labels is None, not 'datamodules.splits"),
        ("--trainer.gradient_clip_val=0.001", "trainer.gradient_clip_val is None, not 0.001, in"),
        ("--channels_last=false", "channels_last is "),
        ("--trainer.max_steps=2", "trainer.max_steps is 3, not 2, in"),
        ("--trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches is 1, not 2, in"),
        ("--trainer.min_steps=2", "trainer.min_steps is None, not 2, in"),
    ],
    ids=lambda text: text.split("=")[0],
)
def test_a_folder_is_of_one_training(trained, tmp_path, refusal, change, told):
    """What was trained there is not replaced by anything else."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    words = ("fit", "--config", SUPERVISED, f"--trainer.default_root_dir={tmp_path}", *TINY)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    more = ("--data.labels.fraction=0.5",) if "labels" in change else ()
    message = refusal(*words, change, *more)
    assert message.startswith(f"{tmp_path} holds another training: {told}")
    assert message.endswith("choose another folder with --trainer.default_root_dir, or delete that one")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert command(*words, "--trainer.log_every_n_steps=2") == 0


def test_a_training_that_goes_on_may_be_longer_and_sample_otherwise_but_is_no_other(tmp_path, refusal):
    joint = CONFIGS / "joint.yaml"
    words = ["fit", "--config", joint, f"--trainer.default_root_dir={tmp_path}", "--checkpoint_every=1", *TINY]
    asked = iter([False, True])
    with pytest.raises(cli.Stopped):
        run([str(word) for word in words], stop=lambda: next(asked))
    assert "holds another training" in refusal(*words, "--ckpt_path=last", "--optimizer.init_args.lr=0.5")
    assert command(*words, "--ckpt_path=last", "--trainer.max_steps=5", "--model.init_args.guidance_scale=2") == 0
    assert "max_steps: 5" in (tmp_path / "config.yaml").read_text()


def test_a_training_that_goes_on_for_longer_may_have_its_schedule_longer_too(tmp_path):
    words = ["fit", "--config", SUPERVISED, f"--trainer.default_root_dir={tmp_path}", "--checkpoint_every=1", *TINY]
    asked = iter([False, True])
    with pytest.raises(cli.Stopped):
        run([str(word) for word in words], stop=lambda: next(asked))
    assert command(*words, "--ckpt_path=last", "--trainer.max_steps=4", "--lr_scheduler.init_args.steps=700") == 0


def test_settings_of_an_unknown_hand_beside_weights_are_not_to_be_put_aside(trained, tmp_path, refusal):
    """Renamed, they would no longer say whose weights those are, and other ones would replace them."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    kept = tmp_path / "config.yaml"
    kept.write_text(kept.read_text().removeprefix(kept_config.HEADER))
    message = refusal("fit", "--config", SUPERVISED, f"--trainer.default_root_dir={tmp_path}", *TINY)
    assert message.endswith("settings of the training; choose another folder with --trainer.default_root_dir")


def test_a_file_of_the_users_is_not_replaced(tmp_path, refusal):
    shutil.copytree(CONFIGS, tmp_path, dirs_exist_ok=True)
    own = tmp_path / "config.yaml"
    shutil.copy(SUPERVISED, own)
    message = refusal("fit", "--config", own, f"--trainer.default_root_dir={tmp_path}", *TINY)
    assert message.startswith(f"{own} would be replaced by all settings of the training; rename it, or choose another")
    assert own.read_bytes() == SUPERVISED.read_bytes()


def test_a_kept_configuration_that_is_damaged_is_named(trained, tmp_path, refusal):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.yaml").write_text(kept_config.HEADER + "model: 3\n")
    message = refusal("fit", "--config", SUPERVISED, f"--trainer.default_root_dir={tmp_path}", *TINY)
    assert message.startswith(f"{tmp_path / 'config.yaml'} is damaged; ")


def test_settings_for_another_machine_may_name_devices_that_this_one_lacks():
    words = ["--config", str(SUPERVISED), "--trainer.accelerator=gpu", "--trainer.devices=999", *TINY]
    with pytest.raises(InputError):
        build(words)
    built = build(words, here=False)
    assert (built.config["trainer"]["accelerator"], str(built.config["trainer"]["devices"])) == ("gpu", "999")


def test_a_prediction_needs_weights_and_a_classifier(trained, refusal):
    assert refusal("predict", "--config", SUPERVISED, "--ckpt_path=/x.ckpt") == "no checkpoint at /x.ckpt"
    message = refusal("predict", "--config", CONFIGS / "score_model.yaml")
    assert message == "ScoreModel predicts no classes: no class posterior"
    none = ("--trainer.limit_predict_batches=0", f"--ckpt_path={trained / 'checkpoints' / FINAL}", *TINY)
    assert refusal("predict", "--config", SUPERVISED, *none).startswith("there are no batches to predict")


def test_a_resume_point_of_another_method_is_refused(trained, refusal, edited):
    other = edited(**{"model.init_args.network.init_args.width": 2})
    message = refusal("validate", "--config", other, f"--ckpt_path={trained / 'checkpoints' / FINAL}")
    assert "final.ckpt holds the weights of another method or size than Supervised" in message
    message = refusal("test", "--config", CONFIGS / "gaussian.yaml", f"--ckpt_path={trained / 'checkpoints' / FINAL}")
    assert "another method or size than Gaussians" in message


def test_weights_alone_do_not_resume_a_training(trained, refusal):
    message = refusal("fit", "--config", SUPERVISED, f"--ckpt_path={trained / 'checkpoints' / FINAL}", *TINY)
    assert "final.ckpt holds weights alone; training goes on from a resume point" in message


@pytest.mark.parametrize(
    ("subcommand", "content", "reason"),
    [
        ("fit", b"hello", "cannot be read as weights alone"),
        ("test", None, "no checkpoint at"),
        ("validate", "a list", "no checkpoint of a method"),
    ],
)
def test_a_checkpoint_that_is_none_is_refused(tmp_path, refusal, subcommand, content, reason):
    path = tmp_path / "some.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save([1, 2], path)
    message = refusal(subcommand, "--config", SUPERVISED, f"--ckpt_path={path}", *TINY)
    assert reason in message
    assert str(path) in message


def test_the_last_resume_point_of_a_folder_without_one_is_refused(tmp_path, refusal):
    message = refusal("fit", "--config", SUPERVISED, f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=last")
    assert message == f"no resume point in {tmp_path / 'checkpoints'}"


# What a configuration or a command line cannot say

NETWORK = "model.init_args.network.init_args"
WRONG_VALUES = {
    f"{NETWORK}.depth": ("ten", "expected PositiveInt", "'ten'"),
    "model.init_args.label_smoothing": ("high", "expected ClosedUnitInterval", "'high'"),
    "data.init_args.batch_size": (0, "expected PositiveInt", "v>0"),
    "data.init_args.validation_fraction": (1.5, "expected OpenUnitInterval", "v<1"),
    "optimizer.init_args.lr": ("fast", "expected float", "fast"),
    "trainer.max_steps": ("many", "expected int", "many"),
    "ema.decay": (-0.5, "expected ClosedUnitInterval", "v>=0"),
}


@pytest.mark.parametrize("key", WRONG_VALUES)
def test_a_wrong_value_in_a_file_is_named_with_file_key_type_and_value(edited, refusal, key):
    value, *told = WRONG_VALUES[key]
    path = edited(**{key: value})
    message = refusal("fit", "--config", path)
    assert message.startswith(f"{path}: {key}: ")
    assert all(part in message for part in told)


@pytest.mark.parametrize("key", [f"{NETWORK}.depth", "trainer.max_steps"])
def test_a_wrong_value_on_the_command_line_is_named_too(refusal, key):
    value, *told = WRONG_VALUES[key]
    message = refusal("fit", "--config", SUPERVISED, f"--{key}={value}")
    assert message.startswith(f"command line: {key}: ")
    assert all(part in message for part in told)


def test_a_wrong_value_in_an_included_file_is_named_with_that_file(edited, refusal, tmp_path):
    path = edited(CONFIGS / "noisy_classifier.yaml")
    included = tmp_path / "denoiser.yaml"
    included.write_text(included.read_text().replace("width: 16", "width: wide"))
    denoiser = "model.init_args.denoiser.init_args.denoiser.init_args.network.init_args"
    message = refusal("fit", "--config", path)
    assert message.startswith(f"{included}: {denoiser}.width: expected PositiveInt")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        (f"{NETWORK}.depht", "depth"),
        ("model.init_args.label_smooting", "label_smoothing"),
        ("trainer.max_step", "trainer.max_steps"),
        ("optimiser", "optimizer"),
    ],
)
def test_an_unknown_key_is_named_with_its_file_and_the_nearest_known_one(edited, refusal, key, hint):
    path = edited(**{key: 3})
    assert refusal("fit", "--config", path) == f"{path}: {key}: unknown key; did you mean {hint}"


def test_an_option_is_not_completed_from_its_beginning(refusal):
    message = refusal("fit", "--config", SUPERVISED, "--trainer.max_step=3")
    assert message == "command line: trainer.max_step: unknown key; did you mean trainer.max_steps"


@pytest.mark.parametrize("option", ["-c", "--config"])
def test_a_configuration_that_is_no_mapping_is_named_under_both_names_of_the_option(tmp_path, refusal, option):
    (tmp_path / "list.yaml").write_text("[]")
    told = f"{tmp_path / 'list.yaml'}: expected keys and values, got []"
    assert (
        refusal("fit", option, tmp_path / "list.yaml") == refusal("fit", f"{option}={tmp_path / 'list.yaml'}") == told
    )


def test_a_missing_configuration_and_a_folder_are_named(tmp_path, refusal):
    missing = refusal("fit", f"--config={tmp_path / 'none.yaml'}")
    assert missing == f"cannot read {tmp_path / 'none.yaml'}: No such file or directory"
    assert refusal("fit", "--config", tmp_path) == f"cannot read {tmp_path}: Is a directory"


def test_a_key_twice_in_an_included_file_is_named(edited, refusal, tmp_path):
    path = edited(CONFIGS / "noisy_classifier.yaml")
    (tmp_path / "heun.yaml").write_text("class_path: a\nclass_path: b\n")
    assert refusal("fit", "--config", path) == f"{tmp_path / 'heun.yaml'}, line 2: key 'class_path' is given twice"


def test_a_file_that_includes_itself_is_refused(edited, refusal):
    path = edited(model="mine.yaml")
    assert str(path) in refusal("fit", "--config", path)


REFUSED = {
    "no command": ((), "fit,validate,test,predict"),
    "no such command": (("train",), "invalid choice: 'train'"),
    "nothing given": (("fit",), "the following arguments are required: fit.data, fit.model"),
    "negative steps": (("--trainer.max_steps=-7",), "trainer.max_steps must be at least 1, or -1 for no limit, got -7"),
    "no steps": (("--trainer.max_steps=0",), "trainer.max_steps must be at least 1, or -1 for no limit, got 0"),
    "no end": (("--trainer.max_steps=-1",), "would never end; give trainer.max_steps or trainer.max_epochs"),
    "negative guidance": (
        ("--model=methods.noisy_classifier.NoisyClassifierGuidance", "--model.guidance_scale=-1",
         f"--model.denoiser={CONFIGS / 'pretrained.yaml'}", f"--model.network={CONFIGS / 'wrn.yaml'}"),
        "guidance_scale",
    ),
    "wrong channels": ((f"--{NETWORK}.in_channels=3",), "Supervised does not take the 1x8x8 images of digits"),
    "wrong classes": ((f"--{NETWORK}.classes=5",), "Supervised tells 5 classes apart, the task of digits has 10"),
    "impossible network": ((f"--{NETWORK}.depth=11",), "depth must be 10, 16, 22, 28"),
    "too many labels": (
        ("--data.labels=LabelsPerClass", "--data.labels.count=5000"), "5000 images of class 0 were asked for, the data"
    ),
    "no such class": (
        ("--data.labels=PositiveUnlabeled", "--data.labels.count=9", "--data.labels.positive=[1,77]"),
        "positive must be some but not all of the classes 0..9, got [1, 77]",
    ),
    "negative seed": (("--seed_everything=-1",), "seed_everything: expected NonNegativeInt: -1 does not conform"),
    "huge seed": (("--seed_everything=8589934592",), "seed_everything must be an integer from 0 to 2^32 - 1"),
    "no resume points": (("--checkpoint_every=0",), "checkpoint_every: expected PositiveInt"),
    "unknown class": (("--optimizer=SGDD",), "optimizer: no class named SGDD"),
    "misspelt class": (("--model=methods.supervised.Supervized",), "has no attribute 'Supervized'"),
    "misspelt module": (("--model=methods.superviced.Supervised",), "has no attribute 'superviced'"),
    "not a method": (("--model=torch.optim.SGD",), "does not correspond to a subclass of Method"),
    "no such device": (("--trainer.accelerator=gpu", "--trainer.devices=99"), "gpu"),
    "precision": (("--trainer.precision=half",), "got half"),
    "validation interval": (("--trainer.val_check_interval=0.5",), "val_check_interval"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_asked_for_is_refused_in_one_line(refusal, case):
    words, told = REFUSED[case]
    if words and words[0].startswith("--"):
        words = ("fit", "--config", SUPERVISED, *words)
    assert told in refusal(*words)


def test_a_folder_that_is_a_file_is_refused(tmp_path, refusal):
    path = tmp_path / "taken"
    path.write_text("")
    assert str(path) in refusal("fit", "--config", SUPERVISED, f"--trainer.default_root_dir={path}", *TINY)


def test_a_score_model_that_is_not_trained_yet_is_named(tmp_path, refusal):
    missing = tmp_path / "none.ckpt"
    words = (f"--model.denoiser.checkpoint={missing}", f"--trainer.default_root_dir={tmp_path}", *TINY)
    message = refusal("fit", "--config", CONFIGS / "denoising_assisted.yaml", *words)
    assert message.startswith(f"no trained denoiser at {missing}; train it first")


# Classes of other packages

OUTSIDE = "class_path evilmod.Net is outside the allowed modules (methods, datamodules, benchmark.training.schedules, "


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module outside the allowed packages; the test fails if it gets imported."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    mark = tmp_path / "imported"
    source = f"import pathlib, torch\npathlib.Path({str(mark)!r}).touch()\nclass Net(torch.nn.Module): pass\n"
    (folder / "evilmod.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    yield "evilmod.Net"
    assert not mark.exists()
    assert "evilmod" not in sys.modules


@pytest.mark.parametrize(
    "words",
    [
        ("--model=evilmod.Net",),
        (f"--{NETWORK.removesuffix('.init_args')}=evilmod.Net",),
        (f"--{NETWORK.removesuffix('.init_args')}.class_path=evilmod.Net",),
        ("--optimizer=evilmod.Net",),
        ("--trainer.callbacks+=evilmod.Net",),
        ("--model.help=evilmod.Net",),
        ("--config={model: {class_path: evilmod.Net}}",),
    ],
    ids=lambda words: words[0],
)
def test_a_class_of_another_package_is_refused_before_it_is_imported(refusal, evil, words):
    assert OUTSIDE in refusal("fit", "--config", SUPERVISED, *words)


def test_a_class_of_another_package_is_refused_wherever_a_file_names_it(edited, refusal, evil, tmp_path):
    path = edited(**{"model.class_path": evil})
    assert refusal("fit", "--config", path).startswith(f"{path}: model: {OUTSIDE}")
    path.write_text(f"trainer: {{default_root_dir: &hidden {evil}}}\nmodel: {{class_path: *hidden}}\n")
    assert refusal("fit", "--config", path).startswith(f"{path}: model: {OUTSIDE}")
    path = edited(CONFIGS / "score_model.yaml", **{"model.init_args.likelihood": evil})  # any callable serves there
    assert OUTSIDE in refusal("fit", "--config", path)
    path = edited(CONFIGS / "score_model.yaml")
    (tmp_path / "heun.yaml").write_text(json.dumps({"class_path": evil}))
    assert refusal("fit", "--config", path).startswith(f"{tmp_path / 'heun.yaml'}: model.init_args.sampler: {OUTSIDE}")


# As a process


@pytest.mark.slow
def test_a_bad_file_is_refused_before_anything_heavy_is_imported(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("trainer: {}\ntrainer: {}\n")
    words = [sys.executable, "-X", "importtime", "-m", "benchmark.cli", "fit", "--config", path]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "import time:" in done.stderr
    assert not any(line.endswith(("| torch", "| lightning")) for line in done.stderr.splitlines())
