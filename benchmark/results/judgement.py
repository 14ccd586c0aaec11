"""Judgements: one claim held against one suite's results."""

from dataclasses import dataclass

import numpy as np

from benchmark.errors import shown
from benchmark.results.answers_file import Answers
from benchmark.results.claims import Claim, Pair, Side
from benchmark.results.differences import seed_list
from benchmark.results.paired import FEWEST, margin, paired_gain, verdict
from benchmark.results.record import FAILED, OK, UNNORMALISED, Record, Results

NOT_RUN = "not run"


@dataclass(frozen=True)
class Judgement:
    """A verdict with what it rests on.

    Attributes:
        verdict: One of ``paired.VERDICTS``, or ``not run``; then ``reason`` says why and what it would take, and the
            numbers are None.
        metric: Metric of A, and of B where that is another; empty without cells.
        a: Mean of A over seeds.
        b: Mean of B.
        gain: Mean gain of A over B, positive where A is better: a difference, or the logarithm of a ratio.
        low: Lower end of its 90 % interval.
        high: Upper end.
        delta: Margin.
        ratio: Whether gain, ends and margin are logarithms of ratios.
        seeds: Seeds that both sides have.
        images: Test images behind the error over images; None where that error is left out, as no scores are kept.
        reason: Why there is no verdict.
    """

    verdict: str
    metric: str = ""
    a: float | None = None
    b: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    delta: float | None = None
    ratio: bool = False
    seeds: tuple[int, ...] = ()
    images: int | None = None
    reason: str = ""


NATS = ("nll", "nll/ode")
"""Metrics of densities."""


class Missing(Exception):
    """A claim that results cannot judge; the message says what it would take."""


def judge(claim: Claim, results: Results, answers: Answers | None) -> Judgement:
    """Hold a claim against results.

    Args:
        claim: The claim.
        results: Numbers of one suite.
        answers: Scores of its test images, if they are kept.
    """
    pair = claim.pair(results.suite)
    try:
        if pair is None:
            raise Missing(claim.takes or _command(*claim.suites))
        return _judged(claim, pair, results, answers)
    except Missing as missing:
        return Judgement(NOT_RUN, _metric(pair) if pair else "", reason=str(missing))


def _judged(claim: Claim, pair: Pair, results: Results, answers: Answers | None) -> Judgement:
    sides = [_values(side, pair, results) for side in (pair.a, pair.b)]
    seeds = tuple(sorted(sides[0].keys() & sides[1].keys()))
    if len(seeds) < FEWEST:
        common = seed_list(seeds) if seeds else "no seed"
        raise Missing(f"{FEWEST} seeds of {pair.a} and {pair.b}, which share {common}: {_command(results.suite)}")
    counts = {side[seed].n for side in sides for seed in seeds}
    if len(counts) > 1 and pair.a.metric == pair.b.metric:
        raise Missing(
            f"as many images or samples of {pair.a} as of {pair.b}, not {' and '.join(map(str, sorted(counts)))}"
        )
    kinds = {str(record.protocol.get("kind")) for side in sides for record in side.values() if record.metric in NATS}
    if UNNORMALISED in kinds:
        raise Missing(f"densities with a known mass: {pair.a.metric} of {pair.a} or {pair.b} has none")
    definition = pair.definition
    a, b = (np.array([side[seed].value for seed in seeds]) for side in sides)
    scores = [answers and answers.of_seeds(side.cell, seeds, side.metric) for side in (pair.a, pair.b)]
    try:
        gain = paired_gain(definition, a, b, *scores)
    except ValueError as error:
        raise Missing(f"{pair.a.metric} of {pair.a} and {pair.b} above 0: {error}") from None
    delta = margin(definition, b)
    if not np.isfinite([gain.low, gain.mean, gain.high, delta]).all():
        raise Missing(f"{pair.a.metric} of {pair.a} and {pair.b} in numbers that can be compared: these are too large")
    return Judgement(
        verdict(claim.direction, gain.mean, gain.low, gain.high, delta), _metric(pair),
        float(a.mean()), float(b.mean()), gain.mean, gain.low, gain.high, delta, definition.ratio, seeds, gain.images,
    )  # fmt: skip


def _values(side: Side, pair: Pair, results: Results) -> dict[int, Record]:
    """Records of one side by seed, all measured."""
    of_cell = [record for record in results.records if record.cell == side.cell]
    if not of_cell:
        raise Missing(f"{_command(results.suite)}, for it lacks {side.cell}")
    found = [
        record
        for record in of_cell
        if record.metric == side.metric
        and record.protocol.get("guidance_scale") == side.scale
        and all(record.protocol.get(name) == value for name, value in pair.where.items())
    ]
    if not found:
        raise Missing(f"a run that measures {side.metric} of {side}")
    for record in found:
        if record.status != OK:
            what = f"failed with seed {record.seed}" if record.status == FAILED else "is n/a"
            raise Missing(f"{side.metric} of {side}, which {what}: {shown(record.reason, 120)}")
    if len({record.protocol_text for record in found}) > 1:
        raise Missing(f"a claim that says `where`: {side.metric} of {side} stands under several protocols")
    return {record.seed: record for record in found}


def _metric(pair: Pair) -> str:
    return pair.a.metric if pair.a.metric == pair.b.metric else f"{pair.a.metric} v {pair.b.metric}"


def _command(*suites: str) -> str:
    named = (suite.partition("-") for suite in suites)
    choices = [f"{name.replace('*', 'one')} at budget {budget}" if budget else name for name, _, budget in named]
    return f"run suite {' or '.join(choices)} with --seeds 0,1,2"
