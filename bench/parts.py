"""Our formulation of one function against the plain one: alternating in one process, each pair a ratio.

    python -m bench.parts --json=bench.jsonl

Attention over 64 x 64 positions as in SaltNet's last decoder, the symmetric Lovasz loss of a batch of 32, the
augmentation of 32 tiles: forward, and backward where there is one. Attention's memory is the growth of a fresh
process's peak.
"""

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import command
import runfolder
from bench import plain
from command import at_least, choose
from datasets.augment import AUGMENTATIONS
from losses.lovasz import symmetric_lovasz
from nets.blocks import ObjectContext
from nets.device import DEVICES, choose_device
from training.bench import append, hardware, peak_bytes, synchronise

Work = Callable[[], object]
CPU = torch.device("cpu")
KEYS = ("net", "encoder", "image_size", "batch", "precision", "device", "threads", "kind", "loss")
FIGURES = ("train_images_per_second", "predict_images_per_second", "peak_gb")


@dataclass(frozen=True, kw_only=True)
class Options:
    repeats: int = 7  # pairs
    device: str = "auto"  # auto, cpu, cuda or mps
    json: str = ""  # a file of JSON lines to append the rows to

    def __post_init__(self) -> None:
        at_least("repeats", self.repeats, 1)
        choose("device", self.device, DEVICES)


def attention(form: str, device: str) -> Work:
    """The object context of decoder1 for 8 tiles: 4,096 positions, 32 channels, 16 of them in keys and values."""
    torch.manual_seed(0)
    module = ObjectContext(32, dropout=0.0)
    torch.nn.init.normal_(module.context.weight)
    module = module.to(device, memory_format=torch.channels_last)
    forward = module if form == "ours" else partial(plain.object_context, module)
    x = torch.randn(8, 32, 64, 64, device=device).to(memory_format=torch.channels_last).requires_grad_()
    return lambda: forward(x).square().mean().backward()


def lovasz(form: str, device: str) -> Work:
    """32 images of 101 x 101 pixels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 101, 101, generator=generator).to(device).requires_grad_()
    mask = (torch.rand(32, 101, 101, generator=generator) > 0.7).to(device, torch.uint8)
    loss = symmetric_lovasz if form == "ours" else plain.symmetric_lovasz
    return lambda: loss(logits, mask).backward()


def augmentation(form: str, device: str) -> Work:
    """32 tiles of 101 x 101 pixels, all transforms of the recipe; plainly on the CPU and then moved to the device."""
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.rand(32, 3, 101, 101, generator=generator), torch.ones(32, 101, 101, dtype=torch.uint8)
    augment = AUGMENTATIONS["saltnet"]
    images, masks = images.to(device), masks.to(device)
    return lambda: (augment if form == "ours" else partial(plain.augment, augment))(images, masks, generator)


PARTS = {"attention": attention, "lovasz": lovasz, "augmentation": augmentation}


def measure(options: Options) -> None:
    """Print a line a part, and append it to the file that `options` names."""
    device = choose_device(options.device)
    for name, part in PARTS.items():
        row = dict.fromkeys((*KEYS, *FIGURES)) | {"part": name, "kind": "ratio", "device": device}
        row |= {"threads": torch.get_num_threads(), "hardware": hardware(torch.device(device))}
        row |= speed(part, device, options.repeats)
        if name == "attention" and device == "cpu" and sys.platform == "linux":
            row |= memory(name)
        row["made with"] = runfolder.provenance()
        print(text(row), flush=True)
        if options.json:
            append(Path(options.json), row)


def speed(part: Callable[[str, str], Work], device: str, repeats: int) -> dict[str, Any]:
    """Milliseconds of both forms and how many times as fast ours is: median, least and most over the pairs."""
    works = {form: part(form, device) for form in ("ours", "plain")}
    seconds = {form: [] for form in works}
    for repeat in range(repeats + 1):
        for form, work in works.items():
            started = time.perf_counter()
            work()
            synchronise(torch.device(device))
            if repeat:  # the first pair warms up
                seconds[form].append(time.perf_counter() - started)
    ratios = sorted(plainly / ours for ours, plainly in zip(seconds["ours"], seconds["plain"], strict=True))
    milliseconds = {f"{form}_ms": round(1000 * statistics.median(found), 2) for form, found in seconds.items()}
    return milliseconds | spread("times_as_fast", ratios)


def spread(name: str, found: list[float]) -> dict[str, Any]:
    return {name: round(statistics.median(found), 2), f"{name}_range": [round(min(found), 2), round(max(found), 2)]}


def memory(name: str) -> dict[str, Any]:
    """Growth of the peak of a fresh process, for both forms, and how many times as much the plain one takes."""
    grown = {}
    for form in ("ours", "plain"):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            grown[form] = pool.submit(growth, name, form).result()
    megabytes = {f"{form}_mb": round(value / 1e6, 1) for form, value in grown.items()}
    return megabytes | {"times_less_memory": round(grown["plain"] / grown["ours"], 1)}


def growth(name: str, form: str) -> int:
    """Bytes by which the memory of this process grows at most in one pass of the part."""
    work = PARTS[name](form, "cpu")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of importing torch, is forgotten
    before = peak_bytes(CPU)
    work()
    return peak_bytes(CPU) - before


def text(row: dict[str, Any]) -> str:
    low, high = row["times_as_fast_range"]
    line = (
        f"{row['part']}: {row['times_as_fast']:.1f} times as fast as the plain form ({low:.1f} to {high:.1f}; "
        f"{row['ours_ms']:.1f} ms against {row['plain_ms']:.1f} ms)"
    )
    if "times_less_memory" in row:
        line += f", {row['times_less_memory']:.0f} times less memory ({row['ours_mb']} MB, {row['plain_mb']} MB)"
    return line


if __name__ == "__main__":
    command.run(measure, Options)
