"""Where and in which precision a net runs: a Lightning Fabric made from three settings."""

import logging
import os
import warnings

import torch
from lightning_fabric import Fabric

from command import BadInput

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"bf16": "bf16-mixed", "fp16": "16-mixed", "float32": "32-true"}  # Lightning Fabric's names


def fabric(device: str = "auto", precision: str = "auto", threads: int = 0) -> Fabric:
    """One process on one device, with `threads` CPU threads (0: all cores); raises BadInput if the device is absent."""
    torch.set_num_threads(threads or num_cores())
    quiet()
    accelerator = best_device() if device == "auto" else device
    if accelerator not in available_devices():
        raise BadInput(f"--device={device} is not on this machine: choose one of {', '.join(available_devices())}")
    precision = resolve_precision(precision, accelerator)
    if precision == "fp16" and accelerator == "cpu":  # Fabric would take bf16 instead, with a warning
        raise BadInput("--precision=fp16 needs a GPU, got a CPU: take bf16, float32 or auto")
    return Fabric(accelerator=accelerator, devices=1, precision=PRECISIONS[precision])


def resolve_precision(precision: str, device: str) -> str:
    """`auto` is bf16 where the device has units for it (emulated, it is slower than float32), else float32."""
    if precision != "auto":
        return precision
    return "bf16" if computes_in_bf16(device) else "float32"


def available_devices() -> list[str]:
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, available in found.items() if available]


def best_device() -> str:
    return available_devices()[0]


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
