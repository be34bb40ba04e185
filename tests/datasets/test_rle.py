import time

import numpy as np
import pytest
import torch
from competition import slow_rle
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from command import BadInput
from datasets import rle

masks = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9), elements=st.integers(0, 1))


def test_by_hand():
    """Down the first column, then to the right: pixels 2 3 | 4 | 9 of a 3 x 3 tile."""
    mask = np.array([[0, 1, 0], [1, 0, 0], [1, 0, 1]])
    assert rle.encode(mask) == "2 3 9 1"
    assert (rle.decode("2 3 9 1", 3, 3) == mask).all()


def test_degenerate_masks():
    assert rle.encode(np.zeros((4, 5), bool)) == ""
    assert rle.encode(np.ones((4, 5), bool)) == "1 20"
    assert rle.encode_many(np.zeros((0, 4, 5), np.uint8)) == []
    assert rle.decode("", 4, 5).sum() == 0
    assert rle.decode(" 1  20 \r\n", 4, 5).all()


def test_16_bit_masks_and_tensors():
    assert rle.encode(np.uint16([[0, 65535], [0, 65535]])) == "3 2"
    assert rle.encode_many(torch.tensor([[[0, 1], [0, 1]]])) == ["3 2"]


@given(masks)
def test_agrees_with_pixel_by_pixel(many):
    assert rle.encode_many(many) == [slow_rle(mask) for mask in many]


@given(masks)
def test_round_trip(many):
    _, height, width = many.shape
    decoded = [rle.decode(text, height, width) for text in rle.encode_many(many)]
    assert (np.stack(decoded) == many).all()
    assert decoded[0].dtype == np.uint8


def test_masks_of_several_chunks(monkeypatch):
    many = np.random.default_rng(0).integers(0, 2, (7, 5, 4))
    monkeypatch.setattr(rle, "CHUNK", 45)  # two masks at a time, then one
    assert rle.encode_many(many) == [slow_rle(mask) for mask in many]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1", "holds 1 numbers, expected pairs"),
        ("1 2 x 3", "holds 'x', expected whole numbers"),
        ("1 2.0", "holds '2.0'"),
        ("-1 2", "holds '-1'"),
        ("1_0 2", "holds '1_0'"),
        ("\u0661 2", "expected whole numbers"),  # Arabic one, which int() would take
        ("0 2", "run 1 of the RLE, '0 2', has a number below 1"),
        ("1 0", "'1 0', has a number below 1"),
        ("5 2 20 2", "run 2 of the RLE, '20 2', ends outside the tile of 4x5 = 20 pixels"),
        ("21 1", "outside the tile"),
        ("1 99999999999999999999999", "outside the tile"),
        ("5 2 1 2", "run 2 of the RLE, '1 2', touches or precedes"),
        ("1 3 3 2", "touches or precedes"),
        ("1 2 3 2", "touches or precedes"),
    ],
)
def test_bad_runs_are_refused(text, said):
    with pytest.raises(BadInput) as error:
        rle.check(text, 4, 5)
    assert said in str(error.value)
    with pytest.raises(BadInput):
        rle.decode(text, 4, 5)


def test_a_quarter_of_a_submission_takes_well_under_a_second():
    one = np.add.outer(np.arange(101), np.arange(101) // 3) % 60 > 30  # some 300 runs, more than real masks have
    many = np.broadcast_to(one, (4_500, 101, 101))
    start = time.process_time()
    assert len(rle.encode_many(many)) == 4_500
    assert time.process_time() - start < 2  # 0.5 s where it was measured, with room for slower machines
