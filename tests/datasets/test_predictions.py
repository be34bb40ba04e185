import random
import zlib

import numpy as np
import pytest
import torch

from command import BadInput
from datasets import predictions

# of "a,0.25" and the little-endian pixels 0, 65535, 32768, 1
CRC_BY_HAND = zlib.crc32(b"a,0.25" + bytes.fromhex("0000 ffff 0080 0100"))


def write_small(stem, num=5, shape=(4, 3)):
    rng = np.random.default_rng(0)
    names, pixels, images = [f"1e{i}" for i in range(num)], rng.random((num, *shape)), rng.random(num)
    predictions.write(stem, names, [(pixels[:2], images[:2]), (pixels[2:], images[2:])])
    return names, pixels, images


def test_values_by_hand(tmp_path):
    pixels = torch.tensor([[[0.0, 1.0, 0.5, 1 / 65535]]])
    predictions.write(tmp_path / "oof", ["a"], [(pixels, torch.tensor([0.25]))])
    stored = predictions.read(tmp_path / "oof")
    assert stored.pixels.tolist() == [[[0, 65535, 32768, 1]]]  # 32767.5 goes to the even neighbour
    assert stored.image_probability.tolist() == [0.25]
    assert (tmp_path / "oof.csv").read_text() == f"name,image_probability,crc32\na,0.25,{CRC_BY_HAND}\n"


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_round_trip(tmp_path, shape):
    names, pixels, images = write_small(tmp_path / "model.v2" / "test", shape=shape)  # the folder is made, dots stay
    stored = predictions.read(tmp_path / "model.v2" / "test")
    assert stored.names == names and len(stored) == 5
    assert isinstance(stored.pixels, np.memmap) and stored.pixels.dtype == np.uint16
    assert np.abs(stored.probability([3, 0]) - pixels[[3, 0]]).max() <= 0.5 / 65535 + 1e-7
    assert stored.probability(slice(0, 2)).dtype == np.float32
    assert (stored.image_probability == images.astype(np.float32)).all()
    assert sorted(path.name for path in (tmp_path / "model.v2").iterdir()) == ["test.csv", "test.npy"]


def test_bfloat16_tensors(tmp_path):
    predictions.write(tmp_path / "oof", ["a"], [(torch.full((1, 2, 2), 0.5, dtype=torch.bfloat16), torch.ones(1))])
    assert (predictions.read(tmp_path / "oof").probability(0) == np.float32(32768 / 65535)).all()


def test_a_failure_keeps_what_was_there_and_leaves_nothing_else(tmp_path):
    names, pixels, images = write_small(tmp_path / "oof")

    def broken():
        yield pixels[:2] * 0, images[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predictions.write(tmp_path / "oof", names, broken())
    assert (predictions.read(tmp_path / "oof").pixels[0] > 0).any()
    assert len(list(tmp_path.iterdir())) == 2


def test_the_csv_comes_last(tmp_path, monkeypatch):
    """Without room for the csv there is none, not the old one beside new pixels."""
    names, pixels, images = write_small(tmp_path / "oof")

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("pandas.DataFrame.to_csv", full)
    with pytest.raises(OSError, match="disk full"):
        predictions.write(tmp_path / "oof", names, [(pixels, images)])
    with pytest.raises(BadInput, match=r"oof.csv is missing"):
        predictions.read(tmp_path / "oof")


@pytest.mark.parametrize("value", [np.nan, 1.01, -0.1, np.inf])
def test_values_that_are_no_probability_are_refused(tmp_path, value):
    pixels, images = np.zeros((3, 2, 2)), np.zeros(3)
    pixels[1, 0, 1] = value
    with pytest.raises(BadInput, match=r"got the probability .* for tile 'b', expected 0..1"):
        predictions.write(tmp_path / "oof", "abc", [(pixels, images)])
    with pytest.raises(BadInput, match="for tile 'c'"):
        predictions.write(tmp_path / "oof", "abc", [(np.zeros((3, 2, 2)), np.array([0, 0, value]))])
    assert list(tmp_path.iterdir()) == []


def test_too_few_and_too_many_are_our_own_fault(tmp_path):
    chunk = (np.zeros((2, 2, 2)), np.zeros(2))
    for names, chunks in (("abc", [chunk]), ("abc", [chunk, chunk]), ("aa", [chunk])):
        with pytest.raises(AssertionError), np.errstate(invalid="ignore"):
            predictions.write(tmp_path / "oof", names, chunks)
    assert list(tmp_path.iterdir()) == []


def damage_cut(stem):
    path = stem.with_suffix(".npy")
    path.write_bytes(path.read_bytes()[:-7])


def damage_archive(stem):
    np.savez(stem.with_suffix(".npz"), a=np.zeros(3))
    stem.with_suffix(".npz").rename(stem.with_suffix(".npy"))


DAMAGE = {
    "cut": (damage_cut, "is not a whole array"),
    "empty": (lambda stem: stem.with_suffix(".npy").write_bytes(b""), "is not a whole array"),
    "text": (lambda stem: stem.with_suffix(".npy").write_text("hello"), "is not a whole array"),
    "archive": (damage_archive, "holds an archive, expected uint16"),
    "pickle": (lambda stem: np.save(stem.with_suffix(".npy"), np.array([{}] * 5)), "is not a whole array"),
    "float": (lambda stem: np.save(stem.with_suffix(".npy"), np.zeros((5, 4, 3))), "holds float64 (5, 4, 3), expected"),
    "flat": (lambda stem: np.save(stem.with_suffix(".npy"), np.zeros((5, 4), np.uint16)), "holds uint16 (5, 4)"),
    "fewer": (
        lambda stem: np.save(stem.with_suffix(".npy"), np.zeros((4, 4, 3), np.uint16)),
        "holds 4 tiles and",
    ),
    "no npy": (lambda stem: stem.with_suffix(".npy").unlink(), "oof.npy is missing"),
    "no csv": (lambda stem: stem.with_suffix(".csv").unlink(), "oof.csv is missing"),
    "columns": (lambda stem: stem.with_suffix(".csv").write_text("a,b\n1,2\n"), "expected name, image_probability"),
    "no table": (lambda stem: stem.with_suffix(".csv").write_text(""), "is not a readable table"),
    "twice": (
        lambda stem: stem.with_suffix(".csv").write_text("name,image_probability,crc32\na,0,1\na,0,1\n"),
        "lists 'a' twice",
    ),
    "above 1": (
        lambda stem: stem.with_suffix(".csv").write_text("name,image_probability,crc32\na,0,1\nb,1.5,1\n"),
        "no image_probability in 0..1 for 'b'",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_said_in_one_sentence(tmp_path, case):
    act, said = DAMAGE[case]
    write_small(tmp_path / "oof")
    act(tmp_path / "oof")
    with pytest.raises(BadInput) as error:
        predictions.read(tmp_path / "oof")
    assert said in str(error.value) and "oof" in str(error.value)
    assert "run the stage that writes it again" in str(error.value)


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_any_flipped_bit_is_found(tmp_path, suffix):
    """Or changes nothing, as in the padding of the header or the end of a line."""
    write_small(tmp_path / "oof")
    expected, path = predictions.read(tmp_path / "oof"), (tmp_path / "oof").with_suffix(suffix)
    whole, rng, found = path.read_bytes(), random.Random(0), 0
    for _ in range(300):
        damaged, place = bytearray(whole), rng.randrange(len(whole))
        damaged[place] ^= 1 << rng.randrange(8)
        path.unlink()  # and not written over: `expected` is a map of it
        path.write_bytes(damaged)
        try:
            read = predictions.read(tmp_path / "oof")
        except BadInput as error:
            assert "oof" in str(error)
            found += 1
            continue
        assert read.names == expected.names and (read.pixels == expected.pixels).all()
        assert (read.image_probability == expected.image_probability).all()
    assert found > 150
