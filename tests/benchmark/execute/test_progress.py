"""The view of a running suite, on a terminal and elsewhere."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from benchmark.cost.times import Seen, clock
from benchmark.execute.progress import LiveView, PlainView, State

JOBS = [SimpleNamespace(name=name) for name in ("a/seed0/train", "a/seed0/evaluate", "b/seed0/train")]
TRAIN, EVALUATE, OTHER = (job.name for job in JOBS)


class Clock:
    """A clock that stands until it is set."""

    seconds = 1000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def now():
    return Clock()


@pytest.fixture
def state(now):
    """Of three jobs, of which the first is finished; each job takes a minute, whatever is seen of it."""
    return State(
        JOBS,
        {TRAIN},
        lambda jobs, done, seen: 60.0 * (len(jobs) - sum(done.values())),
        summary=lambda job: f"summary of {job.name}",
        now=now,
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "?"), (0, "0:00"), (59.6, "1:00"), (123, "2:03"), (3723, "1:02:03"), (9e4, "25:00:00"), (7.2e6, "2,000 h")],
)
def test_times_are_shown_as_a_clock(seconds, shown):
    assert clock(seconds) == shown


def test_the_headline_counts_jobs_and_the_time_left(state):
    assert state.headline == "1/3 jobs done, 0:00 spent, about 2:00 left"
    state.update({"job": EVALUATE, "event": "started"})
    state.update({"job": EVALUATE, "event": "ok"})
    state.update({"job": OTHER, "event": "failed", "error": "x"})
    assert state.headline == "2/3 jobs done, 1 failed, 0:00 spent"


def test_the_time_left_falls_while_a_training_goes_on(state):
    state.update({"job": OTHER, "event": "started"})
    state.update({"job": OTHER, "stage": "train", "done": 150, "total": 600})
    assert state.headline == "1/3 jobs done, 0:00 spent, about 1:45 left"


def test_what_is_seen_of_running_jobs_is_told(now):
    told = []
    state = State(JOBS, {TRAIN}, lambda jobs, done, seen: told.append((done, seen)), str, now=now)
    state.update({"job": EVALUATE, "event": "started"})
    state.update({"job": OTHER, "event": "started"})
    state.update({"job": OTHER, "stage": "train", "done": 300, "total": 600})  # 300 steps are of an earlier run
    now.seconds += 10
    state.update({"job": OTHER, "stage": "train", "done": 350, "total": 600})
    assert state.headline.endswith("unknown time left")
    assert told == [
        ({TRAIN: 1.0, OTHER: 350 / 600}, {EVALUATE: Seen(10.0, None), OTHER: Seen(70.0, 350 / 600)}),
    ]


def test_a_job_that_was_stopped_is_neither_done_nor_failed(state):
    state.update({"job": EVALUATE, "event": "started"})
    state.update({"job": EVALUATE, "event": "stopped"})
    assert state.headline == "1/3 jobs done, 0:00 spent, about 2:00 left"
    assert state.running == {}


def test_time_that_cannot_be_predicted_is_said_to_be_unknown():
    assert (
        State(JOBS, set(), lambda jobs, done, seen: None, str).headline
        == "0/3 jobs done, 0:00 spent, unknown time left"
    )


def test_a_running_job_shows_where_it_is(state, now):
    state.update({"job": OTHER, "event": "started"})
    assert state.line(OTHER) == f"{OTHER}: starting"
    state.update({"job": OTHER, "stage": "train", "done": 25, "total": 600, "loss": 0.25})
    assert state.line(OTHER) == f"{OTHER}: train  25/600  loss 0.2500"
    now.seconds += 10
    state.update({"job": OTHER, "stage": "train", "done": 75, "total": 600, "loss": None})
    assert state.line(OTHER) == f"{OTHER}: train  75/600  5.0 steps/s  1:45 left"


def at(state, now, seconds, **message):
    """The line of a job after a message at so many seconds."""
    now.seconds = 1000.0 + seconds
    state.update({"job": EVALUATE, **message})
    return state.line(EVALUATE).removeprefix(f"{EVALUATE}: ")


def test_what_an_earlier_run_had_done_does_not_count_in_the_rate(state, now):
    at(state, now, 0, event="started", stage="starting")
    assert at(state, now, 5, stage="sample@1", done=0, total=0) == "sample@1"
    assert at(state, now, 20, stage="sample@1", done=2000, total=5000) == "sample@1  2000/5000"
    assert at(state, now, 60, stage="sample@1", done=2500, total=5000).endswith("2500/5000  12.5 images/s  3:20 left")
    now.seconds += 20  # without news
    assert state.line(EVALUATE).endswith("12.5 images/s  3:00 left")
    now.seconds += 1000
    assert state.line(EVALUATE).endswith("12.5 images/s  0:00 left")
    assert at(state, now, 100, stage="sample@1", done=5000, total=5000).endswith("5000/5000  37.5 images/s  0:00 left")


def test_each_stage_has_a_rate_of_its_own_in_its_own_unit(state, now):
    at(state, now, 0, event="started", stage="starting")
    at(state, now, 0, stage="classify", done=1, total=24)
    assert at(state, now, 40, stage="classify", done=11, total=24) == "classify  11/24  0.25 images/s  0:52 left"
    assert at(state, now, 50, stage="likelihood", done=500, total=1500) == "likelihood  500/1500"
    assert at(state, now, 60, stage="likelihood", done=1000, total=1500).endswith("50.0 images/s  0:10 left")


def test_a_training_that_goes_by_epochs_has_no_end_to_count_down_to(state, now):
    at(state, now, 0, event="started", stage="starting")
    at(state, now, 0, stage="train", done=25, total=-1)
    assert at(state, now, 10, stage="train", done=50, total=-1) == "train  2.5 steps/s"


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


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_live_view_has_one_line_a_job_on_a_narrow_terminal(state, width):
    state.update({"job": OTHER, "event": "started"})
    state.update({"job": OTHER, "stage": "features+efficientnet-lite0@1", "done": 150, "total": 600, "loss": 0.5})
    page = Console(width=width, record=True)
    page.print(LiveView(state)._draw())
    job, headline = page.export_text().splitlines()
    assert job.startswith(f"{OTHER}: features+eff")
    assert "━" in job
    assert headline.startswith("1/3 jobs done")


@pytest.mark.parametrize(("left", "told"), [(3.0, ", under 10 seconds left"), (0.0, ""), (None, ", unknown time left")])
def test_a_time_left_of_seconds_is_not_told_as_none(left, told):
    assert State(JOBS, set(), lambda *_: left, str, now=lambda: 0.0).headline == f"0/3 jobs done, 0:00 spent{told}"
