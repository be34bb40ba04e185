"""Seismic sections in SEG-Y: a line of traces as an image, and a result written back in its place.

Needs segyio, an optional extra (requirements-extras.txt). https://github.com/equinor/segyio
"""

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

import runfolder
from command import BadInput

SUFFIXES = (".sgy", ".segy")
CLIPPED = 1.0  # per cent of the amplitudes at either end


def is_section(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def read(path: Path, channels: int) -> Tensor:
    """(channels, samples, traces) float32 in 0..1: amplitudes between their first and last percentile. BadInput."""
    if channels not in (1, 3):
        raise BadInput(f"{path} has one channel, the model takes {channels}: use one that was trained on grey or RGB")
    try:
        with segyio().open(path, ignore_geometry=True) as file:
            amplitudes = file.trace.raw[:].T
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as SEG-Y ({error})") from error
    low, high = np.percentile(amplitudes, (CLIPPED, 100 - CLIPPED))
    scaled = ((amplitudes - low) / max(high - low, np.finfo(np.float32).tiny)).clip(0, 1).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(scaled))[None].repeat(channels, 1, 1)


def write_like(source: Path, path: Path, values: Tensor) -> None:
    """`values` (samples, traces) in 0..1 as the amplitudes of a copy of `source`, whose headers stay.

    A file of integers gets them times its largest one.
    """
    with runfolder.atomic(path) as temporary:
        shutil.copyfile(source, temporary)
        with segyio().open(temporary, "r+", ignore_geometry=True) as file:
            amplitudes = values.numpy().T.astype(np.float64)
            if np.issubdtype(file.dtype, np.integer):
                amplitudes = np.rint(amplitudes * min(np.iinfo(file.dtype).max, 2**31 - 1))
            for trace, of_trace in enumerate(amplitudes.astype(file.dtype)):
                file.trace[trace] = np.ascontiguousarray(of_trace)


def segyio() -> ModuleType:
    try:
        import segyio
    except ImportError:
        raise BadInput("SEG-Y needs segyio: pip install segyio (it is in requirements-extras.txt)") from None
    return segyio
