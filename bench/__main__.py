"""Measure all presets, and their plain formulations, in one run.

    python -m bench                 # or `make bench`: writes runs/bench/TIME.jsonl, a row a measurement
    python -m bench --only=resnet34

Each measurement is a process of its own, as its peak memory is the process's; ours and the plain one take turns, and
each turn gives a ratio.
"""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command
import runfolder
from command import BadInput, at_least, choose
from nets.device import DEVICES, choose_device

CONFIGS = {  # on a CPU, on a GPU
    "resnet34": (["saltnet", "--encoder=resnet34", "--batch=8"], ["saltnet", "--encoder=resnet34", "--batch=32"]),
    "senet154": (["saltnet", "--batch=4"], ["saltnet", "--batch=32"]),
    "fast": (["fast"], ["fast"]),
    "demo": (["demo"], ["demo"]),
}
MODULES = ("training.bench", "bench.plain")  # ours, plain
FIGURES = ("train_images_per_second", "predict_images_per_second", "peak_gb")


@dataclass(frozen=True, kw_only=True)
class Options:
    rounds: int = 3  # turns of each configuration
    repeats: int = 3  # timed steps of a measurement
    only: str = ""  # names of configurations, separated by spaces; empty = all, and the parts
    device: str = "auto"  # auto, cpu, cuda or mps
    json: str = ""  # the file to append rows to; empty = runs/bench/TIME.jsonl

    def __post_init__(self) -> None:
        at_least("rounds", self.rounds, 1)
        at_least("repeats", self.repeats, 1)
        choose("device", self.device, DEVICES)
        for name in self.only.split():
            choose("only", name, CONFIGS)


def bench(options: Options) -> None:
    """Write the rows of all measurements, and print each with the ratios."""
    device = choose_device(options.device)
    path = Path(options.json or runfolder.runs() / "bench" / f"{time.strftime('%Y%m%d-%H%M%S')}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not options.only:
        run("bench.parts", [f"--device={device}", f"--json={path.resolve()}"])
    for name in options.only.split() or CONFIGS:
        where = [f"--device={device}", f"--repeats={options.repeats}", f"--json={path.resolve()}"]
        flags = CONFIGS[name][device != "cpu"] + where
        turns = [[measured(module, flags, path) for module in MODULES] for _ in range(options.rounds)]
        print(f"{name}, ours against the plain form: {', '.join(ratios(turns))}\n", flush=True)
    print(f"wrote {path}")


def measured(module: str, flags: list[str], path: Path) -> dict[str, Any]:
    """The row that a measurement appends to the file."""
    run(module, flags)
    return json.loads(path.read_text(encoding="utf-8").splitlines()[-1])


def run(module: str, flags: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", module, *flags], cwd=runfolder.ROOT)
    if done.returncode:
        raise BadInput(f"{module} {' '.join(flags)} ended with code {done.returncode}: see its message above")


def ratios(turns: list[list[dict[str, Any]]]) -> list[str]:
    """Per figure "median times (least to most over the turns)"; of memory how many times less."""
    texts = []
    for name in FIGURES:
        found = [plain[name] / ours[name] if name == "peak_gb" else ours[name] / plain[name] for ours, plain in turns]
        texts.append(f"{name} {statistics.median(found):.2f}x ({min(found):.2f} to {max(found):.2f})")
    return texts


if __name__ == "__main__":
    command.run(bench, Options)
