"""What only a GPU can show; skipped where there is none."""

import pytest
import torch
from small_run import SMALL

from training import setup
from training.bench import Bench, synthetic_tiles
from training.config import resolve
from training.step import epoch_groups, seed_epoch, train_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
NETS = [SMALL, {"net": "saltnet", "encoder": "resnet18", "weights": "none", "batch": 4}]


def job_on(device: str, settings: dict) -> setup.Job:
    config = resolve(Bench(**settings | {"device": device, "precision": "float32", "augmentation": "saltnet"}))
    tiles = synthetic_tiles(config)
    return setup.prepare(config, (tiles, tiles))


@pytest.mark.parametrize("settings", NETS)
def test_a_step_never_waits_for_the_gpu(settings):
    job = job_on("cuda", settings)
    generator = seed_epoch(0, 0)
    groups = epoch_groups(len(job.train), job.config.batch, 1, generator)
    job.model.train()
    train_step(job, groups[0], job.feed(groups[0]), generator, job.config.image_size)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for group in groups[1:4]:
            train_step(job, group, job.feed(group), generator, job.config.image_size)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_gpu_augments_and_computes_as_the_cpu_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    outcomes = []
    for device in ("cpu", "cuda"):
        job = job_on(device, SMALL)
        generator = seed_epoch(0, 0)
        group = epoch_groups(len(job.train), job.config.batch, 1, generator)[0]
        indices = group[0].to(device)
        images, masks = job.augment(job.train.batch(indices), job.train.masks[indices], generator)
        job.model.eval()
        output = job.model(job.framing.frame(images))
        outcomes.append([x.detach().cpu() for x in (images, masks, output.logits)])
    for cpu, cuda in zip(*outcomes, strict=True):
        close = (cuda.float() - cpu.float()).abs() <= 2e-3 + 1e-3 * cpu.float().abs()
        assert close.double().mean() > 0.999  # nearest sampling may round a tie the other way
