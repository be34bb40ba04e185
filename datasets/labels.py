"""Which values of a mask file are which class.

Nothing given: binary, masks have two values at most, 0 and the object. A list such as "1 2 5": these values are the
classes 1, 2, 3 of a label map, 0 and nothing else is background (class 0), unless other values are let in.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from command import BadInput

MOST = 255  # classes, as label maps are bytes


@dataclass(frozen=True)
class Labels:
    """`values` of the classes 1, 2, ...; none for binary masks, whose object is anything above 0."""

    values: tuple[int, ...] = ()
    others_are_background: bool = False  # else a value that is neither 0 nor listed is an error

    @property
    def num_classes(self) -> int:
        """Channels of a net's logits: 1 for one label, else the background and each label."""
        return 1 if len(self.values) < 2 else len(self.values) + 1

    def classes_of(self, mask: np.ndarray, path: Path) -> np.ndarray:
        """(H, W) of any integers -> (H, W) uint8, 0 .. number of labels. Raises BadInput, naming `path`, for others."""
        if mask.ndim != 2:
            raise BadInput(f"{path} is in colour, expected a mask of one channel: save it in grey or by palette")
        counts = histogram(mask)
        if not self.values:
            if len(counts) > 2 or (len(counts) == 2 and 0 not in counts):
                raise BadInput(
                    f"{path} has the values {told(counts)}, expected two at most, 0 and the object: "
                    "name the labels that you want with --labels, as in --labels='1 2 5'"
                )
            return (mask > 0).astype(np.uint8)
        unknown = sorted(counts.keys() - {0, *self.values})
        if unknown and not self.others_are_background:
            raise BadInput(
                f"{path} has the values {told(counts)}, expected 0 and {' '.join(map(str, self.values))}: "
                "add them to --labels, or take them as background with --other_labels=True"
            )
        found = np.zeros(mask.shape, np.uint8)
        for number, value in enumerate(self.values, start=1):
            found[mask == value] = number
        return found

    def values_of(self, classes: np.ndarray) -> np.ndarray:
        """The other way round: a label map with the files' values, uint8 or uint16; binary masks get 255."""
        values = np.array([0, *(self.values or (255,))], np.uint16)
        values = values.astype(np.uint8) if values.max() < 256 else values
        return values[classes]


BINARY = Labels()


def parse(text: str, others_are_background: bool = False) -> Labels:
    """Labels of "1 2 5", "1..5", or "" (binary). Raises BadInput."""
    words = text.replace(",", " ").split()
    if match := re.fullmatch(r"\s*(\d{1,5})\.\.(\d{1,5})\s*", text):
        words = [str(value) for value in range(int(match[1]), int(match[2]) + 1)] or [text]
    if not all(word.isdecimal() and 0 < int(word) < 2**16 for word in words):
        raise BadInput(f"--labels={text} is no list of mask values from 1 to 65535: write for example '1 2 5' or 1..5")
    values = tuple(map(int, words))
    if len(set(values)) != len(values) or len(values) > MOST:
        raise BadInput(f"--labels={text} has a value twice or more than {MOST} values: list each label once")
    return Labels(values, others_are_background)


def histogram(mask: np.ndarray) -> Counter[int]:
    """Value -> number of pixels."""
    values, counts = np.unique(mask, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def told(counts: Counter[int], most: int = 8) -> str:
    """ "0 (8,100 pixels), 255 (1,900), ..." by falling number."""
    listed = [f"{value} ({count:,})" for value, count in counts.most_common(most)]
    listed[0] = listed[0].replace(")", " pixels)")
    return ", ".join(listed) + (f" and {len(counts) - most} more" if len(counts) > most else "")


def totals(histograms: Iterable[Counter[int]]) -> Counter[int]:
    return sum(histograms, Counter())
