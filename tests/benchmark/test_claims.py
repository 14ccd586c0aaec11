"""The claims command: verdicts from results and their images, three formats, and what it refuses."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from tables import number, results

from benchmark.claims import main
from benchmark.results.answers_file import Scored, write_answers
from benchmark.results.record import failed, not_applicable
from benchmark.results.results_file import write_results

CLAIMS = {
    "raised": {"metric": "accuracy/clean"},
    "nearer": {"metric": "fd", "a": "a@1", "b": "b@1"},
    "alike": {"metric": "nll", "direction": "equal"},
    "elsewhere": {"suites": {"cifar10": {"a": "a", "b": "b", "metric": "fid"}}},
    "unjudged": {"suites": None, "takes": "pictures of gradients"},
}


def claims_file(folder):
    content = {}
    for name, about in CLAIMS.items():
        pair = {"a": about.get("a", "a"), "b": about.get("b", "b"), "metric": about.get("metric", "nll")}
        content[name] = {
            "source": "(a) Table 1", "says": f"It is {name}.", "direction": about.get("direction", "better"),
            "paper": "a picture", "suites": about.get("suites", {"digits": pair}),
        }  # fmt: skip
        if content[name]["suites"] is None:
            del content[name]["suites"]
            content[name]["takes"] = about["takes"]
    (folder / "claims.yaml").write_text(yaml.safe_dump(content and {"claims": content}))
    return folder / "claims.yaml"


def measured(seeds=(0, 1, 2), **values):
    """Records of the cells a and b: ``accuracy/clean`` of 4 images, ``fd`` at scale 1, ``nll``."""
    gains = {"accuracy": (0.25, 0.25, 0.25), "fd": (2.0, 2.2, 1.8), "nll": (0.0, 0.001, -0.001), **values}
    found = []
    for seed, accuracy, fd, nll in zip(seeds, gains["accuracy"], gains["fd"], gains["nll"], strict=False):
        found += [number("a", seed, value=0.5 + accuracy, n=4), number("b", seed, value=0.5, n=4)]
        for cell, value in (("a", 1.0), ("b", fd)):
            found.append(number(cell, seed, "fd", value, n=4, guidance_scale=1))
        found += [number("a", seed, "nll", 2.0 - nll, n=4), number("b", seed, "nll", 2.0, n=4)]
    return found


@pytest.fixture
def judged(tmp_path, capsys):
    """Write results to ``digits.json`` (and scores beside it), run the command on it: its JSON, by claim."""

    def judged(*records, scores=(), suite="digits"):
        write_results(tmp_path / "digits.json", results(*records, suite=suite))
        write_answers(tmp_path / "digits.npz", list(scores))
        words = [str(tmp_path / "digits.json"), f"--claims={claims_file(tmp_path)}", "--format=json"]
        assert main(words) == 0
        content = json.loads(capsys.readouterr().out)
        return {claim["name"]: claim["judgements"][0] for claim in content["claims"]}

    return judged


def verdicts(found):
    return {name: judgement["verdict"] for name, judgement in found.items()}


def test_claims_get_their_verdicts(judged):
    found = judged(*measured())
    assert verdicts(found) == {
        **{"raised": "reproduced", "nearer": "reproduced", "alike": "reproduced"},
        **{"elsewhere": "not run", "unjudged": "not run"},
    }
    assert (found["raised"]["low"], found["raised"]["high"], found["raised"]["delta"]) == (0.25, 0.25, 0.01)
    logs = np.log([2.0, 2.2, 1.8])
    assert found["nearer"]["gain"] == pytest.approx(logs.mean())
    half = 2.9199856 * logs.std(ddof=1) / np.sqrt(3)
    assert found["nearer"]["high"] - found["nearer"]["gain"] == pytest.approx(half)
    assert found["nearer"]["delta"] == pytest.approx(np.log(1.1))
    assert (found["elsewhere"]["reason"], found["unjudged"]["reason"]) == (
        "run suite cifar10 with --seeds 0,1,2", "pictures of gradients"
    )  # fmt: skip


def test_a_gain_the_other_way_round_contradicts_and_none_is_absent(judged):
    found = judged(*measured(accuracy=(-0.25,) * 3, fd=(1.01, 1.0, 1.02), nll=(0.5, 0.5, 0.5)))
    assert verdicts(found) | {"raised": "contradicted", "nearer": "absent", "alike": "contradicted"} == verdicts(found)


def test_images_that_all_seeds_share_make_an_interval_wider(judged):
    rows = [(0.75, 0.5), (1.0, 0.75), (0.75, 0.5)]  # a quarter better in each seed
    images = {"a": [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0]], "b": [[1, 1, 0, 0], [1, 1, 0, 1], [1, 0, 1, 0]]}
    scores = [
        Scored(cell, seed, "k", {"accuracy/clean": np.array(images[cell][seed], float)})
        for cell in "ab"
        for seed in (0, 1, 2)
    ]
    records = [number(c, s, value=rows[s]["ab".index(c)], n=4) for c in "ab" for s in (0, 1, 2)]
    found = judged(*records, scores=scores)["raised"]
    # e = (0, 1/3, 2/3, 0), of variance 11/108: 3 degrees of freedom, whose t is 2.3533634.
    spread = np.sqrt(11 / 108 / 4)
    assert (found["gain"], found["images"]) == (pytest.approx(0.25), 4)
    assert found["low"] == pytest.approx(0.25 - 2.3533634 * spread)
    assert found["verdict"] == "inconclusive"
    alone = judged(*records)["raised"]
    assert (alone["images"], alone["verdict"]) == (None, "reproduced")


def test_scores_of_some_seeds_alone_are_left_out(judged):
    row = Scored("a", 0, "k", {"accuracy/clean": np.array([1, 1, 1, 0], float)})
    assert judged(*measured(), scores=[row])["raised"]["images"] is None


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (measured(seeds=(0, 1)), "3 seeds of a and b, which share seeds 0, 1"),
        ([r for r in measured() if r.cell == "a"], "run suite digits with --seeds 0,1,2, for it lacks b"),
        (measured()[1:], "which share seeds 1, 2"),
        ([*measured()[1:], failed("a", "m", 0, "accuracy/clean", "diverged")], "failed with seed 0: diverged"),
        ([*measured()[1:], not_applicable("a", "m", 0, "accuracy/clean", "none")], "of a, which is n/a: none"),
        ([r for r in measured() if r.metric != "accuracy/clean"], "a run that measures accuracy/clean of a"),
        ([*measured(), number("a", 3, value=0.5, n=4, sigma=1)], "a claim that says `where`"),
        ([*measured()[1:], number("a", 0, value=0.75, n=5)], "as many images or samples of a as of b, not 4 and 5"),
    ],
)
def test_what_cannot_be_judged_says_what_it_takes(judged, records, told):
    judgement = judged(*records)["raised"]
    assert judgement["verdict"] == "not run"
    assert told in judgement["reason"]
    assert judgement["gain"] is None


def test_a_distance_that_is_not_positive_has_no_ratio(judged, monkeypatch):
    monkeypatch.setitem(CLAIMS, "nearer", {"metric": "kd", "a": "a@1", "b": "b@1"})
    records = [number(c, s, "kd", 0.1 * (c == "b") - 0.01, n=4, guidance_scale=1) for c in "ab" for s in range(3)]
    found = judged(*records)["nearer"]
    assert (found["verdict"], "above 0" in found["reason"]) == ("not run", True)


def test_numbers_beyond_all_measure_are_not_compared(judged, tmp_path, capsys):
    found = judged(*measured(fd=(1e250, 1e251, 1e299), nll=(1e200, -1e200, 1e250)))
    assert verdicts(found) | {"nearer": "reproduced", "alike": "not run"} == verdicts(found)
    assert "too large" in found["alike"]["reason"]
    assert main([str(tmp_path / "digits.json"), f"--claims={tmp_path / 'claims.yaml'}"]) == 0
    assert "[x" in capsys.readouterr().out


def test_the_budget_of_more_cells_is_judged_by_its_suites_claims_and_one_that_changes_cells_is_not(judged):
    assert judged(*measured(), suite="digits-full")["raised"]["verdict"] == "reproduced"
    assert judged(*measured(), suite="digits-small")["raised"]["verdict"] == "not run"


def test_a_density_without_a_known_mass_is_not_ranked(judged):
    records = [number(c, s, "nll", 2.0, n=4, kind="unnormalised") for c in "ab" for s in range(3)]
    others = [record for record in measured() if record.metric != "nll"]
    found = judged(*others, *records)["alike"]
    assert (found["verdict"], "known mass" in found["reason"]) == ("not run", True)


def test_results_stand_side_by_side_and_lines_fit(tmp_path, capsys):
    write_results(tmp_path / "digits.json", results(*measured()))
    write_results(tmp_path / "other.json", results(*measured(accuracy=(-0.25,) * 3), commit="later"))
    words = [str(tmp_path / "digits.json"), str(tmp_path / "other.json"), f"--claims={claims_file(tmp_path)}"]
    for count in (1, 2):
        assert main([*words[:count], words[2]]) == 0
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 100
        assert "digits.json (suite digits, commit abc): 3 reproduced, 0 contradicted" in text
        assert "of 3 claims judged, up to about 0.2 would read reproduced" in " ".join(text.split())
        assert "SE_test" in text
        assert "- unjudged: pictures of gradients" in text
    assert "other.json: verdict" in text
    assert "contradicted" in text.split("Not run")[0]


def test_markdown_escapes_what_files_say(tmp_path, capsys):
    write_results(tmp_path / "digits.json", results(*measured(), commit="<b>|x"))
    assert main([str(tmp_path / "digits.json"), f"--claims={claims_file(tmp_path)}", "--format=markdown"]) == 0
    text = capsys.readouterr().out
    assert "<b>" not in text
    rows = [line for line in text.splitlines() if line.startswith("| It is")]
    assert len(rows) == 3
    assert all(row.count("|") == 7 for row in rows)


def test_runs_side_by_side_are_told_apart_by_their_folders_and_none_is_named_twice(tmp_path, capsys):
    for name in ("mine", "yours"):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name / "results.json", results(*measured()))
    words = [f"--claims={claims_file(tmp_path)}", "--format=markdown"]
    assert main([str(tmp_path / "mine"), str(tmp_path / "yours"), *words]) == 0
    assert "mine/results.json: verdict | yours/results.json: verdict" in capsys.readouterr().out
    assert main([str(tmp_path / "mine"), str(tmp_path / "mine" / "results.json"), *words]) == 2
    assert "is named twice; leave one out" in capsys.readouterr().err


def test_the_claims_that_ship_are_held_against_any_results(tmp_path, capsys):
    pair = (("denoising_assisted", 0.7), ("noisy_classifier", 0.6))
    records = [number(cell, seed, "accuracy/noisy", value, n=4) for cell, value in pair for seed in range(3)]
    write_results(tmp_path / "results.json", results(*records))
    assert main([str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "1 reproduced, 0 contradicted, 0 absent, 0 inconclusive" in text
    assert "A classifier that also sees the" in text


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "digits.json").unlink(), "no such file"),
        (lambda f: (f / "digits.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "digits.json").write_bytes(b"\xff\x00"), "not UTF-8"),
        (lambda f: (f / "digits.npz").write_bytes(b"nothing"), "no whole .npz file"),
        (lambda f: (f / "digits.npz").mkdir(), "no whole .npz file"),
        (lambda f: np.savez(f / "digits.npz", nll=np.zeros((1, 2))), "holds no array cells"),
        (lambda f: write_answers(f / "digits.npz", [Scored("a", 0, "k", {"nll": np.ones(4)})]), "results say 2"),
        (lambda f: (f / "claims.yaml").write_text("claims: [1]"), "expected keys and values"),
        (lambda f: (f / "claims.yaml").write_text("claims: {a\n"), "claims.yaml, line 2"),
        (lambda f: (f / "claims.yaml").write_text("claims: \x07"), "control characters"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, capsys, spoil, told):
    write_results(tmp_path / "digits.json", results(*measured()))
    claims = claims_file(tmp_path)
    spoil(tmp_path)
    assert main([str(tmp_path / "digits.json"), f"--claims={claims}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert len(captured.err) <= 400
    assert told in captured.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "RESULTS"), (["--formt=json", "x"], "did you mean --format?"), (["--format=pdf", "x"], "invalid choice"),
        ([""], "expected the path"), (["x"] * 9, "9 results; name at most 8"),
    ],
)  # fmt: skip
def test_bad_words_are_refused(capsys, words, told):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error


def test_help_comes_without_heavy_packages():
    command = [sys.executable, "-X", "importtime", "-m", "benchmark.claims", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "yaml" in imported
    assert not imported & {"torch", "lightning", "torchmetrics", "sklearn", "matplotlib", "scipy.stats"}
    assert "--format" in done.stdout
