"""kill -9 at random moments of the whole chain; the same command again ends with the same bits."""

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from small_chain import OF_RUN, differences, kill, leftovers, make, start, targets

from datasets import synthetic

KILLS = 30
KINDS = ("any moment", "writing", "between stages")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A competition and the run `whole` on it, which nothing interrupted."""
    folder = tmp_path_factory.mktemp("kill")
    synthetic.write(synthetic.Options(data=str(folder / "data"), num_train=40, num_test=12))
    (folder / "runs").mkdir()
    made = make(folder / "runs", folder / "data", "whole")
    assert made.returncode == 0, made.stderr
    return folder


def test_killed_at_thirty_moments_and_made_again_the_bits_are_the_same(place: Path, capsys: pytest.CaptureFixture):
    rng, hit, where, number = random.Random(0), Counter(), Counter(), 0
    while hit.total() < KILLS:
        run, number = f"killed{number}", number + 1
        folder, done = place / "runs" / run, {}
        while True:
            kind = KINDS[hit.total() % len(KINDS)] if hit.total() < KILLS else None
            process = start(place / "runs", place / "data", run)
            reached = kind and moment(kind, rng, folder, process)
            if reached:
                where[stage_of(process)] += 1
                kill(process)
                hit[kind] += 1
            assert reached or process.wait() == 0, (place / "runs" / f"{run}.log").read_text()[-3000:]
            now = targets(folder)
            assert done.items() <= now.items(), "a stage that was done was repeated"
            done = now
            if not reached and (folder / OF_RUN[-1]).exists():
                break
        assert differences(place / "runs" / "whole", folder) == []
        assert leftovers(folder) == []
    assert where["training.train"] and len(where) > 5, where
    with capsys.disabled():
        kinds = ", ".join(f"{count} {kind}" for kind, count in hit.items())
        stages = ", ".join(f"{count} in {stage}" for stage, count in where.most_common())
        print(f"\n{hit.total()} kills of {number} runs ({kinds}; {stages}): every bit is the same")


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
