"""A competition damaged in hundreds of ways: each is read right, or refused in one sentence that names the file."""

import contextlib
import copy
import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from competition import salt_mask, write_competition
from damage import of_folders, of_pngs, of_tables
from damage.case import NUM_TEST, NUM_TRAIN, SIZE, Truth, check_sentence, holds

from command import BadInput
from datasets import png, salt
from datasets.salt import Tiles

TABLES = {"png": of_pngs.CASES, "table": of_tables.CASES, "folder": of_folders.CASES}
CASES = {f"{kind}: {name}": case for kind, cases in TABLES.items() for name, case in cases.items()}
SEEN: dict[str, str] = {}  # fingerprints of what was read: no two cases are the same, and none is the sound one


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_competition(tmp_path_factory.mktemp("sound") / "data", NUM_TRAIN, NUM_TEST, SIZE)


@pytest.fixture(scope="module")
def truth(sound: Path) -> Truth:
    """By OpenCV and by the functions that the competition is made of, not by what is tested."""
    images = {path.stem: cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sound.glob("t*/images/*.png")}
    names = sorted(images)
    train, test = names[:NUM_TRAIN], names[NUM_TRAIN:]
    masks = {name: salt_mask(i, SIZE) for i, name in enumerate(train)}
    return Truth(train, test, images, masks, {name: 50 + 7 * i for i, name in enumerate(names)})


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """To start others takes longer than to read these files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "ThreadPoolExecutor", Serial)
        yield


class Serial(contextlib.nullcontext):
    """A pool of one."""

    def __enter__(self) -> "Serial":
        return self

    def map(self, function, things):
        return map(function, things)


@pytest.fixture(scope="module")
def contents(sound: Path) -> dict[Path, bytes]:
    SEEN[fingerprint(sound)] = "sound"
    return {path: path.read_bytes() for path in sound.rglob("*.*")}


@pytest.fixture
def data(sound: Path, contents: dict[Path, bytes]) -> Iterator[Path]:
    """A sound competition, mended after each test: quicker than a copy for each."""
    yield sound
    mend(sound, contents)


def mend(data: Path, contents: dict[Path, bytes]) -> None:
    for path in sorted(data.rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()
        elif not (path in contents and is_plain(path) and path.read_bytes() == contents[path]):
            path.unlink()
    for path, content in contents.items():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def is_plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_nlink == 1


@pytest.mark.parametrize("name", CASES)
def test_read_right_or_refused(name: str, data: Path, truth: Truth, capsys):
    case, said, truth = CASES[name], {}, copy.deepcopy(truth)
    case.act(data, truth)
    assert SEEN.setdefault(fingerprint(data), name) == name
    for reader, read in {"train": read_train, "test": read_test, "stream": stream, "names": names}.items():
        try:
            read(data, truth)
        except BadInput as error:
            said[reader] = str(error)
    faults = reported(data, capsys)
    assert {*said, *(["verify"] if faults else [])} == case.by, (said, faults)
    for message in (*said.values(), *faults):
        check_sentence(message, data)
    if case.words:
        every = [*said.values(), next((fault for fault in faults if holds(fault, case.words)), faults[0])]
        assert all(holds(message, case.words) for message in every), every


def read_train(data: Path, truth: Truth) -> None:
    tiles = salt.load_train(data)
    same(tiles, truth.train, truth)
    masks = np.stack([truth.masks[name] for name in truth.train])
    assert tiles.masks.dtype == torch.uint8 and np.array_equal(tiles.masks.numpy(), masks)
    same_depths(tiles, truth)


def read_test(data: Path, truth: Truth) -> None:
    tiles = salt.load_test(data)
    same(tiles, truth.test, truth)
    assert tiles.masks is None
    same_depths(tiles, truth)


def stream(data: Path, truth: Truth) -> None:
    pieces = list(salt.stream_test(data, 1))
    assert [name for piece in pieces for name in piece.names] == truth.test
    for piece in pieces:
        same(piece, piece.names, truth)


def names(data: Path, truth: Truth) -> None:
    assert salt.test_names(data) == truth.test


def same(tiles: Tiles, names: list[str], truth: Truth) -> None:
    """Names and images, bit for bit and in their own depth."""
    assert tiles.names == names
    found = tiles.images.numpy()
    expected = [np.atleast_3d(truth.images[name]).transpose(2, 0, 1) for name in names]
    channels = max(len(image) for image in expected)
    expected = np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in expected])
    assert found.dtype == expected.dtype and np.array_equal(found, expected)


def same_depths(tiles: Tiles, truth: Truth) -> None:
    expected = np.float32([truth.depths.get(name, np.nan) for name in tiles.names])
    assert np.array_equal(tiles.depths.numpy(), expected, equal_nan=True)


def reported(data: Path, capsys) -> list[str]:
    """What `make verify` prints of faults, a line each."""
    capsys.readouterr()
    try:
        salt.report(salt.Options(data=str(data)))
    except BadInput as error:
        faults = capsys.readouterr().out.splitlines()
        assert f"has {len(faults)} fault(s)" in str(error)
        return faults
    assert "is sound" in capsys.readouterr().out
    return []


def test_there_are_hundreds():
    right = sum(not case.by for case in CASES.values())
    assert len(CASES) >= 200 and right >= 100 and len(CASES) - right >= 200


def fingerprint(data: Path) -> str:
    """Of all names, links and contents."""
    known = hashlib.sha256()
    for path in sorted(data.rglob("*")):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else str(path.readlink() if path.is_symlink() else "").encode()
        known.update(repr((str(path.relative_to(data)), about.st_mode, about.st_nlink, content)).encode())
    return known.hexdigest()
