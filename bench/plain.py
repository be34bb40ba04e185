"""The same functions as Saltworks', written plainly: slow, for comparison in benchmarks and tests.

    python -m bench.plain saltnet --encoder=resnet34 --batch=8 --json=bench.jsonl

measures, as training.bench does, a training step as the published code takes it: eager float32 in NCHW, the whole
attention matrix, decoder levels enlarged before anything is computed from them, one image after the other in the loss
and in the augmentation. Only the optimiser is ours.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import command
from datasets.augment import Augment, Draws
from losses.supervision import IMAGE_WEIGHT, LEVEL_WEIGHT
from nets import Output
from nets.blocks import Head, Hypercolumn, ObjectContext
from nets.enlarged import enlarge
from nets.grouped import GroupedConv2d
from training import bench, setup
from training.config import PRESETS, resolve


def attention(key: Tensor, value: Tensor) -> Tensor:
    """softmax(k k^T / sqrt(C)) v with the whole matrix: key and value (N, C, P) of P positions -> (N, C, P)."""
    similarity = torch.bmm(key.transpose(1, 2), key) / key.shape[1] ** 0.5
    return torch.bmm(value, similarity.softmax(dim=-1).transpose(1, 2))


def object_context(module: ObjectContext, x: Tensor) -> Tensor:
    """As its paper writes it. Yuan & Wang 2018, section 3.1."""
    found = attention(module.key(x).flatten(2), module.value(x).flatten(2)).reshape(len(x), -1, *x.shape[2:])
    return module.merge(torch.cat([module.context(found), x], dim=1))


def head(module: Head, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """All maps enlarged, concatenated, then the layers one by one."""
    return nn.Sequential.forward(module, torch.cat([enlarge(x, size) for x in maps], dim=1))


def grouped_convolution(module: GroupedConv2d, x: Tensor) -> Tensor:
    return nn.Conv2d.forward(module, x)


FORMS = {
    ObjectContext: object_context,
    Head: head,
    Hypercolumn: head,
    GroupedConv2d: grouped_convolution,
}


def net(built: nn.Module) -> nn.Module:
    """`built` itself, its layers of these FORMS from now on computed plainly, in NCHW; weights and keys stay."""
    built.to(memory_format=torch.contiguous_format)
    built.register_forward_pre_hook(lambda _, images: (images[0].contiguous(),))
    for module in built.modules():
        if type(module) in FORMS:
            module.forward = partial(FORMS[type(module)], module)
    return built


def lovasz_hinge(logits: Tensor, mask: Tensor) -> Tensor:
    """Of one image: Jaccard losses of growing sets and their differences. Berman et al. 2018, algorithm 1."""
    logits, mask = logits.flatten(), mask.flatten().to(logits.dtype)
    errors, order = (1 - logits * (2 * mask - 1)).sort(descending=True, stable=True)
    mask = mask[order]
    intersection = mask.sum() - mask.cumsum(0)
    union = mask.sum() + (1 - mask).cumsum(0)
    jaccard = 1 - intersection / union
    weights = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return torch.dot(F.elu(errors) + 1, weights)


def symmetric_lovasz(logits: Tensor, mask: Tensor, non_empty_only: bool = False) -> Tensor:
    """One image (H, W) of (N, H, W) after the other."""
    pairs = [(o, t) for o, t in zip(logits, mask, strict=True) if t.any() or not non_empty_only]
    halves = [lovasz_hinge(o, t) + lovasz_hinge(-o, 1 - t) for o, t in pairs]
    return torch.stack(halves).mean() / 2 if halves else logits.sum() * 0


def lovasz_bce_loss(output: Output, mask: Tensor) -> Tensor:
    logits = output.logits[:, 0]
    return symmetric_lovasz(logits, mask) + 0.5 * F.binary_cross_entropy_with_logits(logits, mask.float())


def deep_supervision(output: Output, mask: Tensor) -> Tensor:
    total = symmetric_lovasz(output.logits[:, 0], mask)
    if output.image_logits is not None:
        has_salt = mask.flatten(1).any(dim=1).to(output.image_logits.dtype)
        total = total + IMAGE_WEIGHT * F.binary_cross_entropy_with_logits(output.image_logits, has_salt)
    for level in output.level_logits:
        total = total + LEVEL_WEIGHT * symmetric_lovasz(level[:, 0], mask, non_empty_only=True)
    return total


LOSSES = {"saltnet": deep_supervision, "lovasz+0.5ce": lovasz_bce_loss}


def augment(settings: Augment, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One tile after the other, each transform an image of its own, by OpenCV on the CPU."""
    device, (images, masks) = images.device, (images.cpu(), masks.cpu())
    draws = settings.draw(len(images), *images.shape[-2:], generator)
    varied = []
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        draw = Draws(*(value[number].numpy() for value in draws))
        varied.append(augment_tile(settings, image.permute(1, 2, 0).numpy().copy(), mask.numpy().copy(), draw))
    images, masks = (np.stack(part) for part in zip(*varied, strict=True))
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device), torch.from_numpy(masks).to(device)


def augment_tile(settings: Augment, image: np.ndarray, mask: np.ndarray, draw: Draws) -> tuple[np.ndarray, np.ndarray]:
    """image (H, W, 3) float32, mask (H, W) uint8, in the order of the published recipe."""
    height, width = mask.shape
    if draw.cutout:
        left, top = (int(at) - settings.cutout_size // 2 for at in draw.cutout_centre)
        square = np.s_[max(top, 0) : top + settings.cutout_size, max(left, 0) : left + settings.cutout_size]
        if 2 * mask[square].sum() <= mask.sum():
            image[square] = settings.cutout_fill
    if draw.flip:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if draw.crop.any():
        left, right, top, bottom = draw.crop.astype(int)
        inside = np.s_[top : height - bottom, left : width - right]
        image = cv2.resize(np.ascontiguousarray(image[inside]), (width, height), interpolation=cv2.INTER_LINEAR)
        mask = cv2.resize(np.ascontiguousarray(mask[inside]), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    if draw.shear:
        slope = -2 * draw.shear / (height - 1)
        image, mask = affine(image, mask, np.float32([[1, slope, draw.shear], [0, 1, 0]]))
    if draw.rotation:
        centre = ((width - 1) / 2, (height - 1) / 2)
        image, mask = affine(image, mask, cv2.getRotationMatrix2D(centre, math.degrees(draw.rotation), 1))
    if (draw.stretch_x != 1).any() or (draw.stretch_y != 1).any():
        x = positions(draw.stretch_x, width, settings.elastic_step)
        y = positions(draw.stretch_y, height, settings.elastic_step)
        image, mask = remap(image, mask, *np.meshgrid(x, y))
    image = np.clip(image + draw.shift, 0, 1)
    image = np.clip(image * draw.scale, 0, 1)
    return (image**draw.gamma).astype(np.float32), np.ascontiguousarray(mask)


def affine(image: np.ndarray, mask: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size, border = mask.shape[::-1], cv2.BORDER_REFLECT_101
    warped = cv2.warpAffine(np.ascontiguousarray(image), matrix, size, flags=cv2.INTER_LINEAR, borderMode=border)
    mask = cv2.warpAffine(np.ascontiguousarray(mask), matrix, size, flags=cv2.INTER_NEAREST, borderMode=border)
    return warped, mask


def remap(image: np.ndarray, mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    border = cv2.BORDER_REFLECT_101
    return (
        cv2.remap(np.ascontiguousarray(image), x, y, cv2.INTER_LINEAR, borderMode=border),
        cv2.remap(np.ascontiguousarray(mask), x, y, cv2.INTER_NEAREST, borderMode=border),
    )


def positions(stretch: np.ndarray, side: int, step: int) -> np.ndarray:
    """Where each of `side` pixels is read, the steps' stretches adding up from the first."""
    knots = np.concatenate([[0], np.cumsum(stretch * step)])
    return np.interp(np.arange(side), np.arange(len(knots)) * step, knots).astype(np.float32)


def measure(asked: bench.Bench) -> None:
    """Print one row for a plain training step of the asked config, whatever precision it names."""
    config = replace(resolve(asked), precision="float32")
    tiles = bench.synthetic_tiles(config)
    job = setup.prepare(config, (tiles, tiles))
    net(job.net)
    bench.measure_and_write(replace(job, loss=LOSSES[config.loss], augment=partial(augment, job.augment)), "plain")


if __name__ == "__main__":
    command.run(measure, {name: bench.benched(preset) for name, preset in PRESETS.items()})
