"""kill -9 at random moments of the whole chain; the same command again ends with the same bits."""

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from small_chain import OF_RUN, differences, kill, leftovers, start, targets

KILLS = 30
KINDS = ("any moment", "writing", "between stages")


def test_killed_at_thirty_moments_and_made_again_the_bits_are_the_same(
    tmp_path: Path, data: Path, whole: Path, record_property: Callable
):
    rng, hit, where, number = random.Random(0), Counter(), Counter(), 0
    while hit.total() < KILLS:
        run, number = f"killed{number}", number + 1
        folder, done = tmp_path / run, {}
        while True:
            kind = KINDS[hit.total() % len(KINDS)] if hit.total() < KILLS else None
            process = start(tmp_path, data, run)
            reached = kind and moment(kind, rng, folder, process)
            if reached:
                where[stage_of(process)] += 1
                kill(process)
                hit[kind] += 1
            assert reached or process.wait() == 0, (tmp_path / f"{run}.log").read_text()[-3000:]
            now = targets(folder)
            assert done.items() <= now.items(), "a stage that was done was repeated"
            done = now
            if not reached and (folder / OF_RUN[-1]).exists():
                break
        assert differences(whole, folder) == []
        assert leftovers(folder) == []
    assert where["training.train"] and len(where) > 5, where
    kinds = ", ".join(f"{count} {kind}" for kind, count in hit.items())
    stages = ", ".join(f"{count} in {stage}" for stage, count in where.most_common())
    record_property("kills", f"{hit.total()} of {number} runs ({kinds}; {stages}), every bit is the same")


def moment(kind: str, rng: random.Random, folder: Path, process: subprocess.Popen) -> bool:
    """Wait for a moment to kill in; whether there was one before the process ended."""
    before, until = targets(folder), time.monotonic() + rng.uniform(0.5, 14)
    skip = rng.randrange(4)  # writings to let pass

    def is_writing() -> bool:
        nonlocal skip
        if any(path.name.endswith(".tmp") for path in folder.rglob(".*")):
            skip -= 1
        return skip < 0

    reached: dict[str, Callable[[], bool]] = {
        "any moment": lambda: time.monotonic() > until,
        "writing": is_writing,
        "between stages": lambda: targets(folder).keys() > before.keys(),
    }
    while process.poll() is None:
        if reached[kind]():
            return True
        time.sleep(0.001)
    return False


def stage_of(process: subprocess.Popen) -> str:
    """The command that runs now below make."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
            if b"-m" in arguments and os.getpgid(int(path.parent.name)) == process.pid:
                return arguments[arguments.index(b"-m") + 1].decode()
        except OSError:
            continue  # it has ended
    return "make"
