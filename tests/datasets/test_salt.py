import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from competition import salt_mask, slow_rle, write_competition, write_png

from command import BadInput
from datasets import salt

ROOT = Path(__file__).parents[2]
FIRST = "00e0000000"  # empty
SECOND = "01e0000001"  # with salt


def path_of(data: Path, folder: str, name: str = SECOND) -> Path:
    return data / "train" / folder / f"{name}.png"


def replace_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_what_is_loaded(tiny_competition):
    tiles = salt.load_train(tiny_competition)
    assert len(tiles) == 12 and tiles.names[:2] == [FIRST, SECOND] and tiles.size == (101, 101)
    assert tiles.images.shape == (12, 1, 101, 101) and tiles.images.dtype == torch.uint8
    assert tiles.masks.dtype == torch.uint8
    assert np.array_equal(tiles.masks, [salt_mask(i, 101) for i in range(12)])
    stored = cv2.imread(str(path_of(tiny_competition, "images")), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(tiles.images[1, 0], stored)
    assert tiles.depths.tolist() == [50 + 7 * i for i in range(12)]
    assert tiles.coverage[0] == 0
    assert tiles.coverage[1] == pytest.approx(salt_mask(1, 101).mean())
    assert salt.verify(tiny_competition) == []


def test_test_tiles(tiny_competition):
    tiles = salt.load_test(tiny_competition)
    assert len(tiles) == 6 and tiles.names[0] == "12e0000012" and tiles.masks is None
    assert tiles.depths[0] == 50 + 7 * 12
    assert tiles.select(tiles.names[:2]).masks is None


def test_order_is_the_tables(tiny_competition):
    table = tiny_competition / "train.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *rows[::-1]]) + "\n")
    tiles = salt.load_train(tiny_competition)
    assert tiles.names[-1] == FIRST
    assert np.array_equal(tiles.masks[0], salt_mask(11, 101))


def test_select_and_batch(tiny_competition):
    tiles = salt.load_train(tiny_competition)
    chosen = tiles.select([tiles.names[5], SECOND])
    assert chosen.names == [tiles.names[5], SECOND]
    assert torch.equal(chosen.images, tiles.images[[5, 1]]) and torch.equal(chosen.masks, tiles.masks[[5, 1]])
    assert chosen.depths.tolist() == [85, 57]
    for indices in ([5, 1], np.array([5, 1]), torch.tensor([5, 1])):
        batch = tiles.batch(indices)
        assert batch.shape == (2, 3, 101, 101) and batch.dtype == torch.float32
        assert torch.equal(batch[:, 2], tiles.images[[5, 1], 0] / 255)
    batch.add_(7)  # new memory, and no channel shares it with another
    assert torch.equal(tiles.batch([1], channels=1)[0], tiles.images[1] / 255)
    assert tiles.batch([], channels=1).shape == (0, 1, 101, 101)
    assert tiles.to("cpu").batch(range(12), device="cpu").shape == (12, 3, 101, 101)
    with pytest.raises(BadInput, match="got the id 'nobody', expected one of the 12 tiles"):
        tiles.select([FIRST, "nobody"])


def test_16_bit_images_keep_their_depth(tiny_competition):
    values = np.arange(101 * 101, dtype=np.uint16).reshape(101, 101) * 6 + 1
    for path in tiny_competition.glob("t*/images/*.png"):
        write_png(path, values)
    tiles = salt.load_train(tiny_competition)
    assert tiles.images.dtype == torch.uint16
    assert np.array_equal(tiles.select([SECOND]).images[0, 0].numpy(), values)
    assert np.array_equal(tiles.batch([3])[0, 1].numpy(), (values / np.float32(65535)).astype(np.float32))
    assert tiles.batch([3]).max() == (101 * 101 - 1) * 6 / 65535 + 1 / 65535
    assert salt.verify(tiny_competition) == []


def test_colours_are_red_green_blue(tiny_competition):
    red = np.zeros((101, 101, 3), np.uint8)
    red[..., 2] = 200  # OpenCV writes from blue, green, red
    write_png(path_of(tiny_competition, "images"), red)
    tiles = salt.load_train(tiny_competition)
    assert tiles.images.shape == (12, 3, 101, 101)
    assert tiles.images[1, :, 0, 0].tolist() == [200, 0, 0]
    assert (tiles.images[0, 0] == tiles.images[0, 2]).all()
    assert torch.equal(tiles.batch([1])[0], tiles.images[1] / 255)
    with pytest.raises(BadInput, match="got tiles of 3 channels for a net of 1"):
        tiles.batch([1], channels=1)


@pytest.mark.parametrize("high", [1, 255, np.uint16(1), np.uint16(65535)])
def test_any_two_values_make_a_mask(tiny_competition, high):
    mask = salt_mask(1, 101)
    write_png(path_of(tiny_competition, "masks"), mask * (high if isinstance(high, np.uint16) else np.uint8(high)))
    assert np.array_equal(salt.load_train(tiny_competition).masks[1], mask)


def test_a_full_mask_has_one_value(tiny_competition):
    write_png(path_of(tiny_competition, "masks", FIRST), np.full((101, 101), 65535, np.uint16))
    replace_text(tiny_competition / "train.csv", f"{FIRST},", f"{FIRST},1 10201")
    assert salt.load_train(tiny_competition).coverage[0] == 1


def test_names_are_text_whatever_they_look_like(tmp_path):
    data = write_competition(tmp_path, 2, 1, size=8)
    for old, new in ((FIRST, "NA"), (SECOND, "007")):
        for path in data.glob("*.csv"):
            path.write_text(path.read_text().replace(old, new))
        for folder in ("images", "masks"):
            path_of(data, folder, old).rename(path_of(data, folder, new))
    assert salt.load_train(data).names == ["NA", "007"]
    assert salt.verify(data) == []


def test_folders_with_spaces_and_accents(tmp_path):
    data = write_competition(tmp_path / "sel gemme, \u00e9t\u00e9 \u5869", 3, 1, size=8)
    assert len(salt.load_train(str(data))) == 3 and len(salt.load_test(data)) == 1
    assert salt.verify(data) == []


def test_symbolic_links(tiny_competition, tmp_path):
    linked = tmp_path / "linked"
    for path in sorted(tiny_competition.rglob("*.*")):
        target = linked / path.relative_to(tiny_competition)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    assert salt.verify(linked) == []
    assert torch.equal(salt.load_train(linked).images, salt.load_train(tiny_competition).images)


def test_byte_order_marks_and_carriage_returns(tiny_competition):
    for path in tiny_competition.glob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert salt.verify(tiny_competition) == []


def test_depths_are_optional_for_loading(tiny_competition):
    (tiny_competition / "depths.csv").unlink()
    assert salt.load_train(tiny_competition).depths.isnan().all()
    assert salt.verify(tiny_competition) == [f"{tiny_competition}/depths.csv is missing, expected a table of id, z"]


def break_size(data):
    write_png(path_of(data, "images"), np.zeros((101, 100), np.uint8))


def break_values(data):
    mask = salt_mask(1, 101) * np.uint8(255)
    mask[0, 0] = 7
    write_png(path_of(data, "masks"), mask)


def break_runs(data):
    mask = salt_mask(1, 101)
    mask[50, 50] ^= True
    replace_text(data / "train.csv", slow_rle(salt_mask(1, 101)), slow_rle(mask))


def break_row_major(data):
    replace_text(data / "train.csv", slow_rle(salt_mask(1, 101)), slow_rle(salt_mask(1, 101).T))


def cut(data):
    path = path_of(data, "images")
    path.write_bytes(path.read_bytes()[:-40])


def flip_bit(data):
    path = path_of(data, "images")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def append(name: str, row: str):
    return lambda data: (data / name).write_text((data / name).read_text() + row + "\n")


def edit(name: str, old: str, new: str):
    return lambda data: replace_text(data / name, old, new)


def put_png(folder: str, image: np.ndarray):
    return lambda data: write_png(path_of(data, folder), image)


FAULTS = {
    "size": (break_size, "images/01e0000001.png has 101x100 pixels of uint8, expected 101x101 pixels"),
    "size of a mask": (put_png("masks", np.zeros((128, 128), np.uint8)), "masks/01e0000001.png has 128x128 pixels"),
    "depth": (put_png("images", np.zeros((101, 101), np.uint16)), "images/01e0000001.png has 101x101 pixels of uint16"),
    "three values": (break_values, "masks/01e0000001.png has 3 values (0, 7, ...), expected two at most"),
    "coloured mask": (put_png("masks", np.eye(101, dtype=np.uint8)[..., None] * np.uint8([1, 2, 3])), "is in colour"),
    "transparency": (put_png("images", np.zeros((101, 101, 4), np.uint8)), "01e0000001.png has 4 channels"),
    "other runs": (break_runs, "masks/01e0000001.png differs from rle_mask in train.csv in 1 pixels"),
    "row-major runs": (break_row_major, "masks/01e0000001.png differs from rle_mask in train.csv in"),
    "broken runs": (edit("train.csv", f"{SECOND},", f"{SECOND},x "), "train.csv, id '01e0000001': the RLE holds 'x'"),
    "cut": (cut, "images/01e0000001.png ("),
    "flipped bit": (flip_bit, "images/01e0000001.png ("),
    "empty file": (
        lambda data: path_of(data, "masks").write_bytes(b""),
        "masks/01e0000001.png (0 bytes) is not a whole",
    ),
    "no PNG": (lambda data: path_of(data, "images").write_text("<html>"), "(6 bytes) is not a whole PNG: download it"),
    "no image": (lambda data: path_of(data, "images").unlink(), "images/01e0000001.png is missing, expected a PNG"),
    "no mask": (lambda data: path_of(data, "masks").unlink(), "masks/01e0000001.png is missing"),
    "no folder": (lambda data: shutil.rmtree(data / "train/masks"), "train/masks is not a folder, expected Kaggle's"),
    "no table": (lambda data: (data / "train.csv").unlink(), "train.csv is missing, expected a table of id, rle_mask"),
    "twice": (append("train.csv", f"{SECOND},"), "train.csv lists '01e0000001' more than once"),
    "a folder in a name": (
        append("train.csv", "../secret,"),
        "train.csv has the id '../secret', expected a file's name",
    ),
    "a Windows folder": (append("train.csv", r"a\b,"), "train.csv has the id"),
    "no name": (append("train.csv", ",1 1"), "train.csv has the id ''"),
    "no header": (
        edit("train.csv", "id,rle_mask\n", ""),
        "begins with '00e0000000,', expected a header with id",
    ),
    "no tiles": (lambda data: (data / "train.csv").write_text("id,rle_mask\n"), "train.csv lists no tiles"),
    "no text": (
        lambda data: (data / "train.csv").write_bytes(b"id,rle_mask\n\xff\xfe,1 1\n"),
        "train.csv cannot be read",
    ),
    "nothing": (lambda data: (data / "train.csv").write_text(""), "train.csv cannot be read"),
    "no depth": (edit("depths.csv", f"{SECOND},57\n", ""), "depths.csv has no row for '01e0000001'"),
    "odd depth": (
        edit("depths.csv", f"{SECOND},57", f"{SECOND},deep"),
        "depths.csv has the depth 'deep' for '01e0000001'",
    ),
    "depth twice": (append("depths.csv", f"{SECOND},1"), "depths.csv lists '01e0000001' more than once"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_refused_and_reported(tiny_competition, case):
    act, said = FAULTS[case]
    act(tiny_competition)
    with pytest.raises(BadInput) as error:
        salt.load_train(tiny_competition)
    assert said in str(error.value) and str(tiny_competition) in str(error.value)
    assert any(said in fault for fault in salt.verify(tiny_competition))


def test_verify_reports_all_of_them(tiny_competition):
    write_png(path_of(tiny_competition, "images", "extra"), np.zeros((101, 101), np.uint8))
    (tiny_competition / "train/images/.DS_Store").touch()
    (tiny_competition / "test/images/notes.txt").touch()
    (tiny_competition / "test/images/13e0000013.png").unlink()
    break_values(tiny_competition)
    edit("depths.csv", f"{FIRST},50\n", "")(tiny_competition)
    append("sample_submission.csv", f"{FIRST},1 1")(tiny_competition)
    faults = salt.verify(tiny_competition)
    expected = (
        "train/masks/01e0000001.png has 3 values",
        "depths.csv has no row for '00e0000000'",
        "test/images/13e0000013.png is missing",
        "test/images/00e0000000.png is missing",
        "train/images has 'extra.png', which is not listed in train.csv",
        "test/images has 'notes.txt', which is not listed in sample_submission.csv",
        "sample_submission.csv lists '00e0000000', which train.csv has too",
    )
    assert len(faults) == len(expected)
    for fault, said in zip(faults, expected, strict=True):
        assert said in fault


def test_test_tiles_of_another_size(tmp_path):
    data = write_competition(tmp_path / "data", 3, 2, size=8)
    shutil.rmtree(data / "test")
    shutil.copytree(write_competition(tmp_path / "larger", 3, 2, size=9) / "test", data / "test")
    assert len(salt.load_test(data)) == 2
    (fault,) = salt.verify(data)
    assert "test/images has 9x9 torch.uint8 tiles, expected 8x8" in fault


@pytest.mark.parametrize("load", [salt.load_train, salt.load_test])
def test_a_missing_folder(tmp_path, load):
    with pytest.raises(BadInput, match=r"nowhere is not a folder: unpack the files of Kaggle"):
        load(tmp_path / "nowhere")
    assert salt.verify(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tiny_competition):
    path_of(tiny_competition, "images").chmod(0)
    with pytest.raises(BadInput, match=r"01e0000001.png cannot be read \(Permission denied\)"):
        salt.load_train(tiny_competition)


def test_the_command_counts(tiny_competition, capsys):
    salt.report(salt.Options(data=str(tiny_competition)))
    assert "is sound: 12 labelled tiles (33.3% empty" in capsys.readouterr().out


def test_the_command_lists_faults_and_ends_with_1(tiny_competition):
    break_size(tiny_competition)
    words = [sys.executable, "-m", "datasets.salt", f"--data={tiny_competition}"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "01e0000001.png has 101x100 pixels" in ended.stdout
    assert ended.stderr.startswith("error: ") and "has 1 fault(s)" in ended.stderr
