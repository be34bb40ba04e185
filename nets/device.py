"""Where and in which precision a net runs: a Lightning Fabric made from three settings."""

import logging
import os
import warnings
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision

from command import BadInput

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"bf16": "bf16-mixed", "fp16": "16-mixed", "float32": "32-true"}  # Lightning Fabric's names


class Autocast(MixedPrecision):
    """Fabric's mixed precision, but for its rounding of images to 8 bits of mantissa before the net normalises them."""

    def convert_input(self, data: Any) -> Any:
        return data


def fabric(device: str = "auto", precision: str = "auto", threads: int = 0) -> Fabric:
    """One process on one device, with `threads` CPU threads (0: all cores).

    Raises BadInput if the device is absent or does not compute in that precision.
    """
    device = choose_device(device)
    precision = resolve_precision(precision, device)
    torch.set_num_threads(threads or num_cores())
    quiet()
    return Fabric(accelerator=device, devices=1, plugins=[precision_plugin(precision, device)])


def precision_plugin(precision: str, device: str) -> Precision:
    return Precision() if precision == "float32" else Autocast(PRECISIONS[precision], device)


def choose_device(device: str) -> str:
    """`auto` is the fastest device of this machine. Raises BadInput for one that it lacks."""
    found = available_devices()
    if device == "auto":
        return found[0]
    if device not in found:
        raise BadInput(f"--device={device} is not on this machine: choose one of {', '.join(found)}")
    return device


def resolve_precision(precision: str, device: str) -> str:
    """`auto` is bf16 where the device has units for it (emulated, it is slower than float32), else float32."""
    if precision == "fp16" and device == "cpu":
        raise BadInput("--precision=fp16 needs a GPU, got a CPU: take bf16 or float32")
    if precision != "auto":
        return precision
    return "bf16" if computes_in_bf16(device) else "float32"


def available_devices() -> list[str]:
    """Fastest first."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, available in found.items() if available]


def computes_in_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    return device == "cpu" and torch.cpu._is_amx_tile_supported()


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quiet() -> None:
    """Fabric's notes on hardware and its own upgrades say nothing about the run."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning_fabric")
