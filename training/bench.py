"""Measure one configuration: training and prediction speed, where a step's time goes, peak memory.

    python -m training.bench saltnet --encoder=resnet34 --batch=8 --json=bench.jsonl

Needs no data: tiles are synthetic, weights random. Prints one row and appends it to --json. A figure is the median over
repeats of whole optimiser steps (or predicted batches), with the least and the most beside it. `make bench` measures
all presets, and the plain formulations (bench/plain.py) in the same run.
"""

import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import command
import runfolder
from command import at_least
from datasets import synthetic
from datasets.salt import Tiles
from nets import Output, tta
from training import setup
from training.config import PRESETS, Config, resolve
from training.setup import Job
from training.step import epoch_groups, seed_epoch, train_step

TILES = 64  # at least; as many as two groups need
TILE_SIZE = 101  # pixels
CALLS = 10  # steps or batches in a row that a GPU is timed over
WATCHED = 2  # further steps that tell the shares
PARTS = ("data", "forward", "loss", "backward", "step")  # of an optimiser step, in turn


@dataclass(frozen=True, kw_only=True)
class Bench(Config):
    """What to measure, as for training.train, and how often."""

    weights: str = "none"  # speed does not depend on them
    repeats: int = 5  # timed steps, and timed predicted batches, after one of each that is not counted
    json: str = ""  # a file of JSON lines to append the row to

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("repeats", self.repeats, 1)


def bench(asked: Bench) -> None:
    """Print one row of figures; append it to the file that `asked` names."""
    config = resolve(asked)
    tiles = synthetic_tiles(config)
    measure_and_write(setup.prepare(config, (tiles, tiles)), "saltworks")


def measure_and_write(job: Job, kind: str) -> None:
    row = describe(job, kind) | measure(job) | {"made with": runfolder.provenance()}
    print(text(row), flush=True)
    if job.config.json:
        append(Path(job.config.json), row)


def measure(job: Job) -> dict[str, Any]:
    """Speeds, peak memory and shares of a step of a job, whose weights it changes."""
    config = job.config
    trained = timed(training_step(job), job.fabric.device, config.repeats)
    predicted = timed(prediction(job), job.fabric.device, config.repeats)
    return {
        **rates("train_images_per_second", config.batch * config.accumulate, trained),
        **rates("predict_images_per_second", config.batch, predicted),
        "peak_gb": round(peak_bytes(job.fabric.device) / 1e9, 3),
        "shares": shares(job),
    }


def timed(work: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Seconds of each call after the first. On a GPU, of several in a row: one waits for it only at their end."""
    calls = 1 if device.type == "cpu" else CALLS
    seconds = []
    for _ in range(repeats + 1):
        synchronise(device)
        started = time.perf_counter()
        for _ in range(calls):
            work()
        synchronise(device)
        seconds.append((time.perf_counter() - started) / calls)
    return seconds[1:]


def synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def training_step(job: Job) -> Callable[[], object]:
    """One optimiser step, the same tiles each time."""
    config = job.config
    generator = seed_epoch(config.seed, 0)
    group = epoch_groups(len(job.train), config.batch, config.accumulate, generator)[0]

    def step() -> None:
        job.model.train()
        train_step(job, group, job.feed(group), generator, config.image_size)

    return step


def prediction(job: Job) -> Callable[[], object]:
    """One batch of tiles and their flips, unframed and averaged, on its way to disk."""
    indices = torch.arange(job.config.batch) % len(job.train)

    def predict() -> None:
        job.model.eval()
        tta.predict(job.model, job.framing, job.train.batch(indices)).probability.cpu()

    return predict


def shares(job: Job) -> dict[str, float]:
    """Where the time of a step goes, waiting for the device between its parts."""
    clock = Clock(job.fabric.device)
    with watched(job, clock) as watched_job:
        step = training_step(watched_job)
        for _ in range(WATCHED):
            clock.start()
            step()
            clock.lap("step")
    return {name: round(clock.total[name] / sum(clock.total.values()), 3) for name in PARTS}


class Clock:
    """Adds up the seconds between one lap and the next, by name; waits for the device at each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.total: dict[str, float] = {}
        self.now = 0.0

    def start(self) -> None:
        synchronise(self.device)
        self.now = time.perf_counter()

    def lap(self, name: str) -> None:
        before = self.now
        self.start()
        self.total[name] = self.total.get(name, 0.0) + self.now - before


@contextmanager
def watched(job: Job, clock: Clock) -> Iterator[Job]:
    """`job` with a lap at the end of each part of its step; the training metric of a batch counts as backward."""
    first = True  # no backward pass lies before a step's first batch

    def augment(*given: Any) -> Any:
        nonlocal first
        if not first:
            clock.lap("backward")
        first = False
        return job.augment(*given)

    def loss(output: Output, mask: torch.Tensor) -> torch.Tensor:
        clock.lap("forward")
        value = job.loss(output, mask)
        clock.lap("loss")
        return value

    def before_step(*_: Any) -> None:
        nonlocal first
        clock.lap("backward")
        first = True

    handles = [
        job.model.register_forward_pre_hook(lambda *_: clock.lap("data")),
        job.optimizer.optimizer.register_step_pre_hook(before_step),
    ]
    yield replace(job, augment=augment, loss=loss)
    for handle in handles:
        handle.remove()


def synthetic_tiles(config: Config) -> Tiles:
    """Two groups of the config, or TILES."""
    count = max(TILES, 2 * config.batch * config.accumulate)
    cuts = list(synthetic.cuts(seed=0, num_tiles=count, tile_size=TILE_SIZE))
    images = torch.from_numpy(np.concatenate([cut.images for cut in cuts]))[:, None]
    masks = torch.from_numpy(np.concatenate([cut.masks for cut in cuts]))
    names = [f"tile{number}" for number in range(count)]
    return Tiles(names, images, masks, torch.full((count,), torch.nan))


def peak_bytes(device: torch.device) -> int:
    """Of the whole process on a CPU, of PyTorch's allocator on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":  # not getrusage: its peak survives exec, so a parent's would count too
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on a Mac


def rates(name: str, images: int, seconds: list[float]) -> dict[str, Any]:
    found = sorted(images / second for second in seconds)
    return {name: round(statistics.median(found), 3), f"{name}_range": [round(found[0], 3), round(found[-1], 3)]}


def describe(job: Job, kind: str) -> dict[str, Any]:
    """What was measured, and on what."""
    config = job.config
    return {
        "net": config.net,
        "encoder": config.encoder if config.net == "saltnet" else f"width {config.width}",
        "image_size": config.image_size,
        "batch": config.batch,
        "precision": config.precision,
        "device": config.device,
        "threads": config.threads,
        "kind": kind,
        "loss": config.loss,
        **{name: getattr(config, name) for name in ("variant", "augmentation", "accumulate", "compile", "recompute")},
        "parameters": sum(parameter.numel() for parameter in job.net.parameters()),
        "repeats": config.repeats,
        "hardware": hardware(job.fabric.device),
    }


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def text(row: dict[str, Any]) -> str:
    low, high = row["train_images_per_second_range"]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in row["shares"].items())
    return (
        f"{row['kind']}: {row['net']} {row['encoder']}, {row['image_size']} px, batch {row['batch']}, "
        f"{row['precision']}, {row['device']}, {row['threads']} threads: training {row['train_images_per_second']:.2f} "
        f"images/s ({low:.2f} to {high:.2f}; {shares}), prediction {row['predict_images_per_second']:.2f} tiles/s, "
        f"peak {row['peak_gb']:.2f} GB"
    )


def append(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def benched(preset: Callable[..., Config]) -> partial:
    """A preset of Config as one of Bench."""
    return partial(Bench, **getattr(preset, "keywords", {}))


if __name__ == "__main__":
    command.run(bench, {name: benched(preset) for name, preset in PRESETS.items()})
