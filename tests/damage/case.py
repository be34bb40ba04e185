"""What a corruption is: a function that damages a small competition, and what has to come of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIZE, NUM_TRAIN, NUM_TEST = 12, 4, 3
SECOND, TESTED = "01e0000001", "05e0000005"  # labelled, with salt; and the second of the test tiles
IMAGE, MASK, TEST_IMAGE = f"train/images/{SECOND}.png", f"train/masks/{SECOND}.png", f"test/images/{TESTED}.png"

# Who refuses: load_train, load_test, stream_test, test_names, or the report of verify. The others read right.
TRAIN = frozenset({"train", "verify"})
TEST = frozenset({"test", "stream", "verify"})
SAMPLE = frozenset({"test", "stream", "names", "verify"})
DEPTHS = frozenset({"train", "test", "verify"})
VERIFY = frozenset({"verify"})
PART = {IMAGE: TRAIN, MASK: TRAIN, TEST_IMAGE: TEST}
TABLE = {"train.csv": TRAIN, "sample_submission.csv": SAMPLE, "depths.csv": DEPTHS}


@dataclass
class Truth:
    """What a competition holds, whatever is in its files. A harmless change of it is told here too."""

    train: list[str]
    test: list[str]
    images: dict[str, np.ndarray]  # (H, W), or (H, W, 3) RGB
    masks: dict[str, np.ndarray]  # (H, W) bool
    depths: dict[str, float]  # those unknown are not there


Act = Callable[[Path, Truth], None]


@dataclass(frozen=True)
class Case:
    act: Act
    by: frozenset[str] = frozenset()  # who refuses it; nobody: it is read right
    words: tuple[str, ...] = ()  # of the message


class Cases(dict[str, Case]):
    """By name, each once."""

    def right(self, name: str, act: Act) -> None:
        self.add(name, Case(act))

    def refused(self, name: str, act: Act, by: frozenset[str], *words: str) -> None:
        assert by and words, name
        self.add(name, Case(act, by, words))

    def add(self, name: str, case: Case) -> None:
        assert name not in self, name
        self[name] = case


def check_sentence(message: str, data: Path) -> None:
    """One line that names a file or folder of the data and says what was expected, or what to do."""
    assert message.isprintable() and str(data) in message, message
    assert "expected " in message or ": " in message, message
    assert "Error" not in message and "Traceback" not in message, message


def holds(message: str, words: Iterable[str]) -> bool:
    return all(word in message for word in words)


def put(path: str, content: bytes | str) -> Act:
    """The file holds this instead."""
    content = content.encode() if isinstance(content, str) else content
    return lambda data, truth: (data / path).write_bytes(content) and None


def change(path: str, function: Callable[[bytes], bytes]) -> Act:
    """The file holds what `function` makes of it."""
    return lambda data, truth: (data / path).write_bytes(function((data / path).read_bytes())) and None


def both(*acts: Act) -> Act:
    def act(data: Path, truth: Truth) -> None:
        for one in acts:
            one(data, truth)

    return act


def on(path: str, function: Callable[[Path], object]) -> Act:
    """function(data / path)"""
    return lambda data, truth: function(data / path) and None


def remade(path: str, make: Callable[[Path], object]) -> Act:
    """Something else in place of the file, or nothing."""
    return both(on(path, Path.unlink), on(path, make))
