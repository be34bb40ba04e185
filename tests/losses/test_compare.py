from itertools import product

import numpy as np
import pytest

from losses.compare import chance_of_best, paired_gain


def test_equal_scores_gain_nothing():
    scores = np.random.default_rng(0).random(50)
    assert paired_gain(scores, scores) == (0, 0, 0)


def test_constant_gain_has_no_width():
    scores = np.arange(20)
    assert paired_gain(scores, scores + 2) == (2, 2, 2)


def test_interval_is_that_of_the_normal_theory():
    random = np.random.default_rng(1)
    a = random.random(400)
    b = a + random.normal(0.02, 0.1, 400)
    gain = paired_gain(a, b)
    error = (b - a).std(ddof=1) / 20
    assert gain.mean == pytest.approx((b - a).mean())
    assert gain.low == pytest.approx(gain.mean - 1.96 * error, abs=0.1 * error)
    assert gain.high == pytest.approx(gain.mean + 1.96 * error, abs=0.1 * error)


def test_pairing_beats_the_noise_of_the_tiles():
    """Scores of tiles vary by 0.3, their differences by 0.01: a gain of 0.005 shows on 400 tiles."""
    random = np.random.default_rng(2)
    a = random.normal(0.8, 0.3, 400)
    assert paired_gain(a, a + random.normal(0.005, 0.01, 400)).low > 0


def test_covers_the_truth_about_95_times_in_100():
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(100):
        low, high = paired_gain(np.zeros(60), random.normal(0.5, 1, 60))[1:]
        covered += low <= 0.5 <= high
    assert 86 <= covered <= 100


def test_seed_decides_the_bounds():
    random = np.random.default_rng(4)
    a, b = random.random(30), random.random(30)
    assert paired_gain(a, b, seed=1) == paired_gain(a, b, seed=1)
    assert paired_gain(a, b, seed=1) != paired_gain(a, b, seed=2)


def test_swapping_turns_the_sign():
    random = np.random.default_rng(5)
    a, b = random.random(30), random.random(30)
    there, back = paired_gain(a, b), paired_gain(b, a)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))


def test_faults_are_refused():
    for a, b in (([1, 2], [1]), ([], []), ([[1]], [[1]])):
        with pytest.raises(ValueError, match="one per tile"):
            paired_gain(a, b)


def exact_chance(gains, groups):
    """By all turns of signs there are."""
    names = sorted(set(groups))
    sums = np.array(
        [[sum(g for g, name in zip(row, groups, strict=True) if name == one) for one in names] for row in gains]
    )
    best = [max((sums * signs).sum(axis=1)) for signs in product([-1, 1], repeat=len(names))]
    return np.mean([value >= sums.sum(axis=1).max() - 1e-9 for value in best])


def test_chance_of_the_best_equals_all_turns_of_signs():
    gains = np.random.default_rng(0).integers(-3, 5, (3, 12))
    groups = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    assert chance_of_best(gains, groups) == pytest.approx(exact_chance(gains, groups), abs=0.02)


def test_chance_by_hand():
    assert chance_of_best([[1, 1, 1, 1, 0, 0]], range(6)) == pytest.approx(1 / 16, abs=0.01)  # four of four
    assert chance_of_best([[1] * 6], range(6)) < 0.025  # six of six
    assert chance_of_best([[1] * 6], [0, 0, 0, 0, 0, 1]) == pytest.approx(1 / 4, abs=0.02)  # only two causes
    assert chance_of_best(np.zeros((2, 5)), range(5)) == 1
    assert chance_of_best([[2, 0, 0], [0, 1, 1]], range(3)) > 0.4


def test_the_best_of_many_that_do_nothing_is_rarely_beyond_chance():
    """100 searches for the best of six, over 100 tiles that gain and lose alike."""
    random = np.random.default_rng(1)
    found = [chance_of_best(random.choice([-1, 0, 1], (6, 100)), range(100), seed) <= 0.025 for seed in range(100)]
    assert np.mean(found) < 0.06


def test_chance_needs_groups_of_the_tiles():
    with pytest.raises(ValueError, match=r"expected \(V, N\) and \(N,\)"):
        chance_of_best([[1, 2, 3]], [0, 1])
