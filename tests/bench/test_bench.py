"""What is measured and how it is written; speed itself is never tested."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import __main__ as driver
from bench import parts, plain
from command import BadInput
from datasets.augment import AUGMENTATIONS
from training import bench, setup
from training.bench import PARTS, Bench
from training.config import resolve

KEYS = {
    "net",
    "encoder",
    "image_size",
    "batch",
    "precision",
    "device",
    "threads",
    "kind",
    "loss",
    "train_images_per_second",
    "predict_images_per_second",
    "peak_gb",
}
SMALL = {
    **{"net": "fastnet", "width": 8, "variant": "resize", "image_size": 32, "batch": 2},
    **{"device": "cpu", "threads": 1, "repeats": 2},
}
SALTNET = SMALL | {"net": "saltnet", "encoder": "resnet18", "repeats": 1}


@pytest.mark.parametrize(("measure", "kind"), [(bench.bench, "saltworks"), (plain.measure, "plain")])
@pytest.mark.parametrize("net", [SMALL, SALTNET])
def test_a_row_is_one_configuration(measure, kind, net, tmp_path: Path):
    path = tmp_path / "deep" / "bench.jsonl"
    measure(Bench(**net, json=str(path)))
    (row,) = (json.loads(line) for line in path.read_text().splitlines())
    assert row.keys() >= KEYS
    assert (row["net"], row["kind"], row["batch"], row["threads"]) == (net["net"], kind, net["batch"], 1)
    low, high = row["train_images_per_second_range"]
    assert 0 < low <= row["train_images_per_second"] <= high
    assert row["predict_images_per_second"] > 0 and row["peak_gb"] > 0.1
    assert tuple(row["shares"]) == PARTS and sum(row["shares"].values()) == pytest.approx(1, abs=0.01)
    assert row["precision"] == "float32" or kind == "saltworks"


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_slow_part_is_told_as_that_part(accumulate: int, monkeypatch: pytest.MonkeyPatch):
    """And predicting, which comes between, counts in none. By a clock that only the slow part moves much."""
    now = 0.0

    def pass_by(seconds: float) -> float:
        nonlocal now
        now += seconds
        return now

    monkeypatch.setattr(time, "perf_counter", lambda: pass_by(0.001))

    def slow_loss(output, mask):
        pass_by(0.05)
        return output.logits.mean()

    class SlowBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            pass_by(0.1)
            return gradient

    def slow_behind(output, mask):
        return SlowBackward.apply(output.logits).mean()

    config = resolve(Bench(**SMALL | {"accumulate": accumulate, "repeats": 1}))
    tiles = bench.synthetic_tiles(config)
    for part, loss, seconds in (("loss", slow_loss, 0.05), ("backward", slow_behind, 0.1)):
        row = bench.measure(replace(setup.prepare(config, (tiles, tiles)), loss=loss))
        assert row["shares"][part] > 0.8
        assert row["train_images_per_second"] < 2 / seconds


def test_ratios_of_parts_are_of_pairs():
    assert set(parts.PARTS) == {"attention", "lovasz", "augmentation"}
    row = parts.speed(lambda form, device: lambda: torch.ones(1 if form == "ours" else 10**7).sum(), "cpu", 3)
    low, high = row["times_as_fast_range"]
    assert 1 < low <= row["times_as_fast"] <= high
    for part in (parts.lovasz, parts.augmentation):
        for form in ("ours", "plain"):
            part(form, "cpu")()


def test_ratios_are_ours_over_plain_and_memory_the_other_way():
    ours = {"train_images_per_second": 6.0, "predict_images_per_second": 8.0, "peak_gb": 1.0}
    slow = {"train_images_per_second": 2.0, "predict_images_per_second": 4.0, "peak_gb": 5.0}
    faster = ours | {"train_images_per_second": 8.0}
    texts = driver.ratios([[ours, slow], [faster, slow], [ours, slow]])
    assert texts == [
        "train_images_per_second 3.00x (3.00 to 4.00)",
        "predict_images_per_second 2.00x (2.00 to 2.00)",
        "peak_gb 5.00x (5.00 to 5.00)",
    ]


def test_unknown_configurations_are_refused():
    with pytest.raises(BadInput, match="--only=resnet19 is not known: choose one of resnet34"):
        driver.Options(only="fast resnet19")
    with pytest.raises(BadInput, match="--repeats=0 is too small"):
        Bench(**SMALL | {"repeats": 0})


def test_plain_augmentation_is_the_same_transforms():
    """Tile by tile by OpenCV: the same but for how each resampling rounds, so most pixels are close."""
    generator = torch.Generator()
    ramp = torch.linspace(0.2, 0.8, 101)
    images = (ramp[:, None] + 0.3 * ramp[None, :]).mul(0.7).expand(64, 3, 101, 101).contiguous()
    masks = (images[:, 0] > 0.45).to(torch.uint8)
    settings = AUGMENTATIONS["saltnet"]
    ours = settings(images, masks, generator.manual_seed(3))
    plainly = plain.augment(settings, images, masks, generator.manual_seed(3))
    changed = (ours[0] - images).abs().flatten(1).amax(1) > 0.02
    assert changed.sum() > 32
    assert ((ours[0] - plainly[0]).abs() < 0.03).double().flatten(1).mean(1).min() > 0.9
    assert (ours[1] == plainly[1]).double().flatten(1).mean(1).min() > 0.95
