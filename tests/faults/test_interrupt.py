"""Ctrl-C in the middle of a step that takes many seconds."""

import os
import signal
import subprocess
import time
from pathlib import Path

from small_chain import ROOT, environment, words

from datasets import synthetic

LARGE = "ARGS=--encoder=resnet18 --weights=none --batch=64 --epochs=1000 --device=cpu --precision=float32"


def test_ctrl_c_ends_within_five_seconds_and_says_how_to_go_on(tmp_path: Path):
    synthetic.write(synthetic.Options(data=str(tmp_path / "data"), num_train=140, num_test=4))
    command = [*words(tmp_path / "data", "large", "train")[:-1], LARGE, "PRESET=saltnet"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(tmp_path / "runs"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if "training and" in line:  # what the training says of itself before its first step
            break
    time.sleep(3)
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 5
    assert process.returncode != 0 and "the same command goes on" in errors and "Traceback" not in errors
    assert not list((tmp_path / "runs").rglob("final.pt"))
