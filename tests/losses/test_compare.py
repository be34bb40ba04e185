import numpy as np
import pytest

from losses.compare import paired_gain


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
