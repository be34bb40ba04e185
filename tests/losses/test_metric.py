import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.metric import iou, metric, pixel_accuracy, standard_error, tenths


def strip(start, stop, length=100):
    """One image, a row of pixels of which start .. stop - 1 are salt."""
    mask = torch.zeros(1, 1, length, dtype=torch.bool)
    mask[..., start:stop] = True
    return mask


def slow_tenths(prediction, mask):
    """One image in exact fractions."""
    prediction, mask = prediction.flatten().tolist(), mask.flatten().tolist()
    if not any(mask):
        return 0 if any(prediction) else 10
    both = sum(bool(p and t) for p, t in zip(prediction, mask, strict=True))
    either = sum(bool(p or t) for p, t in zip(prediction, mask, strict=True))
    return sum(Fraction(both, either) > Fraction(k, 20) for k in range(10, 20))


def test_perfect_masks_score_one():
    """The floor formula min(10, floor(20 IoU - 10) + 1) without its minimum gives 1.1."""
    assert metric(strip(0, 79), strip(0, 79)) == 1.0
    assert metric(strip(0, 1), strip(0, 1)) == 1.0
    assert metric(strip(0, 100), strip(0, 100)) == 1.0
    assert tenths(strip(0, 79), strip(0, 79)).tolist() == [10]


def test_empty_prediction_of_a_79_percent_mask_scores_nothing():
    """IoU from np.histogram counts the background as a class and gives 0.6."""
    assert metric(strip(0, 0), strip(0, 79)) == 0.0


def test_empty_masks():
    assert metric(strip(0, 0), strip(0, 0)) == 1.0
    assert metric(strip(0, 1), strip(0, 0)) == 0.0
    assert metric(strip(0, 100), strip(0, 0)) == 0.0
    assert metric(strip(0, 0), strip(0, 1)) == 0.0
    assert metric(strip(0, 0), strip(0, 100)) == 0.0


@pytest.mark.parametrize(("twentieths", "expected"), [(k, max(0, k - 10)) for k in range(1, 21)])
@pytest.mark.parametrize("unit", [1, 3, 7, 500])
def test_thresholds_are_strict(twentieths, expected, unit):
    """IoU of exactly 0.5 reaches no threshold, exactly 0.55 one, exactly 0.95 nine; one pixel more is one more."""
    union = 20 * unit
    assert tenths(strip(0, twentieths * unit, union), strip(0, union, union)).tolist() == [expected]
    if unit > 1 and 10 <= twentieths < 20:
        assert tenths(strip(0, twentieths * unit + 1, union), strip(0, union, union)).tolist() == [expected + 1]


def test_worked_example():
    # salt 0..59, prediction 10..69: both 50, either 70, IoU 0.714: above 0.50, 0.55, 0.60, 0.65, 0.70
    assert tenths(strip(10, 70), strip(0, 60)).tolist() == [5]
    assert iou(strip(10, 70), strip(0, 60)).tolist() == [pytest.approx(50 / 70)]
    assert pixel_accuracy(strip(10, 70), strip(0, 60)).tolist() == [pytest.approx(0.8)]


def test_symmetric_in_prediction_and_mask_where_both_have_salt():
    assert tenths(strip(10, 70), strip(0, 60)).equal(tenths(strip(0, 60), strip(10, 70)))


def test_a_short_last_batch_counts_by_its_tiles():
    """Averaging batch means would give (2/3 + 0) / 2."""
    mask = torch.cat([strip(0, 50)] * 4)
    prediction = torch.cat([strip(0, 50), strip(0, 50), strip(0, 0), strip(0, 0)])
    assert metric(prediction, mask) == 0.5
    parts = [tenths(prediction[part], mask[part]) for part in (slice(0, 3), slice(3, 4))]
    assert torch.cat(parts).sum().item() / 40 == 0.5


def test_mask_values_of_8_and_16_bit_files_count_as_one():
    for value, dtype in ((1, torch.uint8), (255, torch.uint8), (65535, torch.int32)):
        assert metric(strip(0, 79), strip(0, 79).to(dtype) * value) == 1.0


def test_shapes_and_probabilities_are_refused():
    with pytest.raises(ValueError, match="equal shapes"):
        tenths(torch.zeros(2, 128, 128, dtype=torch.bool), torch.zeros(2, 101, 101, dtype=torch.bool))
    with pytest.raises(ValueError, match="threshold"):
        tenths(torch.rand(2, 5, 5), torch.zeros(2, 5, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="no images"):
        metric(torch.zeros(0, 5, 5, dtype=torch.bool), torch.zeros(0, 5, 5, dtype=torch.bool))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.5, 0.9, 1.0]), st.sampled_from([0.0, 0.02, 0.1, 0.3, 1.0]))
def test_agrees_with_exact_fractions(seed, coverage, disagreement):
    random = np.random.default_rng(seed)
    mask = random.random((5, 6, 7)) < coverage
    prediction = mask ^ (random.random((5, 6, 7)) < disagreement)
    result = tenths(torch.from_numpy(prediction), torch.from_numpy(mask))
    assert result.tolist() == [slow_tenths(p, t) for p, t in zip(prediction, mask, strict=True)]


def test_iou_and_accuracy_of_empty_tiles():
    assert iou(strip(0, 0), strip(0, 0)).tolist() == [1.0]
    assert iou(strip(0, 10), strip(0, 0)).tolist() == [0.0]
    assert pixel_accuracy(strip(0, 0), strip(0, 0)).tolist() == [1.0]
    assert pixel_accuracy(strip(0, 100), strip(0, 0)).tolist() == [0.0]


def test_views_that_are_not_contiguous():
    mask = torch.rand(6, 8, 9) > 0.5
    turned = mask.transpose(1, 2)
    assert tenths(turned, turned.contiguous()).tolist() == [10] * 6


def test_standard_error():
    scores = torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert standard_error(scores) == pytest.approx(math.sqrt(1 / 3) / 2)
    assert standard_error(tenths(strip(0, 5), strip(0, 5)).repeat(9)) == 0
    assert math.isnan(standard_error(torch.tensor([0.5])))
