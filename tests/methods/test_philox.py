"""The counter-based generator against published answers, an oracle in exact integers, and the laws of its draws."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from benchmark.cost.meter import META, Meter
from methods.philox import normal, philox, uniform

ONES = 2**32 - 1
CONSTANTS = {
    32: (0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85),
    64: (0xD2E7470EE14C6C93, 0xCA5A826395121157, 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B),
}
"""Multipliers and steps of the key, by the bits of a word."""


def exact(counter, key, bits):
    """Ten rounds on words of 32 or 64 bits, in Python's integers."""
    first, second, *steps = CONSTANTS[bits]
    a, b, c, d = counter
    for _ in range(10):
        (high, low), (high2, low2) = (divmod(m * word, 2**bits) for m, word in ((first, a), (second, c)))
        a, b, c, d = high2 ^ b ^ key[0], low2, high ^ d ^ key[1], low
        key = [(word + step) % 2**bits for word, step in zip(key, steps, strict=True)]
    return [a, b, c, d]


def words(counter, key):
    found = philox(tuple(torch.tensor(word) for word in counter), key[0] | key[1] << 32)
    return [int(word) for word in found]


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_words_are_the_published_answers(counter, key, answer):
    assert words(counter, key) == list(answer)


def test_words_are_those_of_an_oracle_that_is_numpys_generator_on_words_of_64_bits():
    rng = np.random.default_rng(0)
    for _ in range(50):
        counter, key = ([int(word) for word in rng.integers(2**64, size=n, dtype=np.uint64)] for n in (4, 2))
        theirs = np.random.Philox(counter=np.array(counter, np.uint64), key=np.array(key, np.uint64))
        ahead = [(counter[0] + 1) % 2**64, *counter[1:]]  # numpy counts before it draws
        assert exact(ahead, key, 64) == theirs.random_raw(4).tolist()
        counter, key = ([int(word) for word in rng.integers(2**32, size=n)] for n in (4, 2))
        assert words(counter, key) == exact(counter, key, 32)


def test_the_counter_is_pixel_draw_and_image_and_pixels_are_words_in_four_parts():
    key, image = 0x0123456789ABCDEF, 0x7EDCBA9876543210
    found = uniform(key, torch.tensor([0, image]), range(9, 11), (2, 5))[1, 1].flatten()
    counters = [(pixel, 10, image & ONES, image >> 32) for pixel in range(3)]
    rows = zip(*(exact(counter, (key & ONES, key >> 32), 32) for counter in counters), strict=True)
    assert found.tolist() == [(word >> 8) / 2**24 for row in rows for word in row][:10]


def test_normal_draws_are_box_and_mullers_of_the_words():
    radius, angle = (exact((0, 3, 5, 0), (7, 0), 32)[i] for i in (0, 1))
    length = math.sqrt(-2 * math.log((radius + 0.5) / 2**32))
    turn = 2 * math.pi * angle / 2**32
    found = normal(7, torch.tensor([5]), range(3, 4), (2,)).flatten()
    np.testing.assert_allclose(found, [length * math.cos(turn), length * math.sin(turn)], rtol=1e-5)


@pytest.mark.parametrize("draw", [uniform, normal])
@pytest.mark.parametrize("shape", [(1,), (1, 1, 2), (3, 5, 7), (3, 8, 8)])
def test_an_image_is_the_same_in_any_batch_and_block(draw, shape):
    whole = draw(1, torch.arange(100), range(20), shape)
    assert whole.shape == (20, 100, *shape)
    for image in (0, 42, 99):
        for number in (0, 19):
            alone = draw(1, torch.tensor([image]), range(number, number + 1), shape)
            torch.testing.assert_close(alone[0, 0], whole[number, image], rtol=0, atol=0)


def test_uniform_draws_fill_the_unit_interval():
    v = uniform(3, torch.arange(200), range(10), (1, 10, 10)).double().flatten()
    assert 0 <= v.min() < 1e-4
    assert 1 - 1e-4 < v.max() < 1
    assert stats.kstest(v, "uniform").pvalue > 1e-3


def test_normal_draws_are_standard_normal():
    z = normal(4, torch.arange(200), range(10), (1, 10, 10)).double()
    n = z.numel()
    moments = [z.mean(), z.square().mean() - 1, z.pow(3).mean(), z.pow(4).mean() - 3]
    assert all(abs(m) < 4.5 * math.sqrt(v / n) for m, v in zip(moments, (1, 2, 15, 96), strict=True))
    assert stats.kstest(z.flatten(), "norm").pvalue > 1e-3


def test_the_ends_of_the_words_make_finite_normal_draws(monkeypatch):
    ends = tuple(torch.tensor([[[word]]]) for word in (0, ONES, ONES, 0))
    monkeypatch.setattr("methods.philox._words", lambda *_: ends)
    z = normal(0, torch.tensor([0]), range(1), (4,))
    assert z.isfinite().all()
    assert 6.7 < z.abs().max() < 6.8


def test_pixels_images_draws_and_keys_share_no_noise():
    keys = (0, 1, 2**32, 2**63)
    draws = [normal(key, torch.tensor([0, 1, 2**32]), range(10), (3, 16, 16)) for key in keys]
    vectors = torch.cat(draws).flatten(0, 1).flatten(1)  # 120 vectors of 768 pixels
    assert torch.corrcoef(vectors).fill_diagonal_(0).abs().max() < 6 / math.sqrt(768)
    across = torch.corrcoef(vectors.T).fill_diagonal_(0)
    assert across.abs().max() < 6.5 / math.sqrt(120)


def test_a_block_of_draws_is_made_where_the_images_are_by_few_operators():
    with Meter() as meter:
        z = normal(5, torch.arange(250, device=META), range(16), (3, 32, 32))
    assert (z.device, z.shape) == (META, (16, 250, 3, 32, 32))
    assert meter.operators < 150


def test_draws_compile_as_one_graph():
    torch.testing.assert_close(
        torch.compile(normal, fullgraph=True, backend="eager")(2**63 + 5, torch.arange(3), range(2), (1, 2, 2)),
        normal(2**63 + 5, torch.arange(3), range(2), (1, 2, 2)),
        rtol=0, atol=0,
    )  # fmt: skip
