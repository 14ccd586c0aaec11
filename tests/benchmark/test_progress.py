"""The view of a running suite, on a terminal and elsewhere."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from benchmark.progress import LiveView, PlainView, State, clock

JOBS = [SimpleNamespace(name=name) for name in ("a/seed0/train", "a/seed0/evaluate", "b/seed0/train")]
TRAIN, EVALUATE, OTHER = (job.name for job in JOBS)


@pytest.fixture
def state():
    """Of three jobs, of which the first is finished; each job takes a minute."""
    return State(
        JOBS,
        {TRAIN},
        lambda jobs, done: 60.0 * (len(jobs) - sum(done.values())),
        summary=lambda job: f"summary of {job.name}",
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "?"), (0, "0:00"), (59.6, "1:00"), (123, "2:03"), (3723, "1:02:03"), (9e4, "25:00:00")],
)
def test_times_are_shown_as_a_clock(seconds, shown):
    assert clock(seconds) == shown


def test_the_headline_counts_jobs_and_the_time_left(state):
    assert state.headline == "1/3 jobs done, 0:00 spent, about 2:00 left"
    state.update({"job": EVALUATE, "event": "started"})
    state.update({"job": EVALUATE, "event": "ok"})
    state.update({"job": OTHER, "event": "failed", "error": "x"})
    assert state.headline == "2/3 jobs done, 1 failed, 0:00 spent, about 0:00 left"


def test_the_time_left_falls_while_a_training_goes_on(state):
    state.update({"job": OTHER, "event": "started"})
    state.update({"job": OTHER, "stage": "train", "done": 150, "total": 600})
    assert state.headline == "1/3 jobs done, 0:00 spent, about 1:45 left"


def test_a_job_that_was_stopped_is_neither_done_nor_failed(state):
    state.update({"job": EVALUATE, "event": "started"})
    state.update({"job": EVALUATE, "event": "stopped"})
    assert state.headline == "1/3 jobs done, 0:00 spent, about 2:00 left"
    assert state.running == {}


def test_time_that_cannot_be_predicted_is_said_to_be_unknown():
    assert State(JOBS, set(), lambda jobs, done: None, str).headline == "0/3 jobs done, 0:00 spent, unknown time left"


def test_a_running_job_shows_where_it_is(state):
    state.update({"job": OTHER, "event": "started"})
    assert state.line(OTHER) == f"{OTHER}: starting"
    state.update({"job": OTHER, "stage": "train", "done": 25, "total": 600, "loss": 0.25})
    assert state.line(OTHER) == f"{OTHER}: train  25/600  loss 0.2500"
    state.running[OTHER]["stage_since"] -= 10  # ten seconds later
    state.update({"job": OTHER, "stage": "train", "done": 75, "total": 600, "loss": None})
    assert state.line(OTHER) == f"{OTHER}: train  75/600  5.0 step/s"


def test_news_of_a_job_that_has_ended_is_ignored(state):
    state.update({"job": OTHER, "event": "started"})
    state.update({"job": OTHER, "event": "ok"})
    state.update({"job": OTHER, "stage": "train", "done": 600, "total": 600})
    assert state.running == {}


def messages():
    yield {"job": EVALUATE, "event": "started"}
    yield {"job": EVALUATE, "stage": "sample@1", "done": 5, "total": 20}
    yield {"job": OTHER, "event": "started"}
    yield {"job": EVALUATE, "event": "ok", "status": "ok"}
    yield {"job": OTHER, "event": "failed", "status": "failed", "error": "cannot write [/tmp/x]: [red]no[/]"}


def test_the_plain_view_has_a_line_for_each_beginning_and_end(state, capsys):
    with PlainView(state) as view:
        for message in messages():
            view(message)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "jobs done" not in line] == [
        f"started  {EVALUATE}",
        f"started  {OTHER}",
        f"done     {EVALUATE}  summary of {EVALUATE}",
        f"failed   {OTHER}: cannot write [/tmp/x]: [red]no[/]",
    ]


def test_the_plain_view_says_now_and_then_where_jobs_are(state, capsys):
    with PlainView(state, every=0.0) as view:
        for message in list(messages())[:2]:
            view(message)
    assert f"{EVALUATE}: sample@1  5/20" in capsys.readouterr().out


def test_the_live_view_shows_the_same_and_takes_errors_as_they_are(state, capsys):
    drawn = []
    with LiveView(state) as view:
        for message in messages():
            view(message)
            page = Console(width=120, record=True)
            page.print(view._draw())
            drawn.append(page.export_text())
    shown = capsys.readouterr().out
    assert f"done     {EVALUATE}  summary of {EVALUATE}" in shown
    assert f"failed   {OTHER}: cannot write [/tmp/x]: [red]no[/]" in shown
    assert f"{EVALUATE}: sample@1  5/20" in drawn[1]
    assert "2/3 jobs done, 1 failed" in drawn[-1]
