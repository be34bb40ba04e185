import re
import time

import numpy as np
import pytest
import torch
from competition import slow_rle
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from command import BadInput
from datasets import rle

steady = settings(max_examples=200, derandomize=True, deadline=None)
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


@given(hnp.arrays(hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.unsigned_integer_dtypes(), (2, 3, 4)))
@settings(derandomize=True, deadline=None)
def test_whatever_is_not_0_is_salt(many):
    assert rle.encode_many(many) == [slow_rle(mask != 0) for mask in many]


def slow_decode(text: str, height: int, width: int) -> np.ndarray | None:
    """Pixel by pixel, to be independent of datasets.rle; None for what is no RLE."""
    words = re.findall(r"\S+", text)
    if len(words) % 2 or not all(re.fullmatch("[0-9]+", word) for word in words):
        return None
    mask, behind = np.zeros((height, width), np.uint8), 0  # the pixel behind the last run
    for start, length in zip(map(int, words[::2]), map(int, words[1::2]), strict=True):
        if start <= behind or length < 1 or start + length > height * width + 1:
            return None
        for pixel in range(start - 1, start - 1 + length):
            mask[pixel % height, pixel // height] = 1
        behind = start + length
    return mask


def check_text(text: str, height: int, width: int) -> None:
    """Refused in one line; or it is what the slow decoder reads, and encodes to the same runs."""
    expected = slow_decode(text, height, width)
    if expected is None:
        with pytest.raises(BadInput) as error:
            rle.decode(text, height, width)
        assert str(error.value).isprintable()
        return
    found = rle.decode(text, height, width)
    assert np.array_equal(found, expected)
    assert rle.encode(found).split() == [str(int(word)) for word in text.split()]


odd_words = st.sampled_from(
    ["-1", "+2", "1.0", "1e1", "0x1", "1_0", "nan", "\u0661", "\u00b2", ",", '"', "9" * 40, "0" * 30 + "1"]
)
numbers = st.integers(0, 30).map(str)
separators = st.sampled_from([" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\x1f", ",", "\0", "\ufeff", ""])


@given(st.text(), st.integers(1, 6), st.integers(1, 6))
@steady
def test_any_text_is_refused_or_read_right(text, height, width):
    check_text(text, height, width)


@given(st.lists(st.tuples(numbers | numbers | odd_words, separators)), st.integers(1, 6), st.integers(1, 6))
@steady
def test_numbers_and_what_looks_like_them(pairs, height, width):
    check_text("".join(word + separator for word, separator in pairs), height, width)


@given(masks, st.data())
@steady
def test_a_text_that_lost_or_won_letters(many, data):
    """Cut, changed and filled in at any place: what is still an RLE is read as it now stands."""
    mask = many[0]
    text = rle.encode(mask)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        gone, new = data.draw(st.integers(0, 2)), data.draw(st.text("0123456789 -.x", max_size=2))
        text = text[:place] + new + text[place + gone :]
    check_text(text, *mask.shape)


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
