"""Every loss by name, for one class and for several: against slow formulas, values by hand, and what all must keep."""

import math
from itertools import chain, product

import numpy as np
import pytest
import torch
from outputs import Output, deep_output, mask_with_empty_ones
from scipy.ndimage import distance_transform_edt

from command import BadInput
from losses import LOSSES, PIXELS, REGIONS, build, parse

GENERAL = [*PIXELS, *REGIONS]
CASES = [(name, classes) for name in LOSSES for classes in ((1,) if name == "saltnet" else (1, 3))]


# ------------------------------------------------------------------- slow formulas: a pixel and a class at a time


def pixels_of(logits, mask):
    """Per image, a list of (probability of each class, true class); one class of logits is made two."""
    images = []
    for image, labels in zip(logits.detach().double().numpy(), mask.numpy(), strict=True):
        pixels = []
        for row, column in product(*(range(side) for side in labels.shape)):
            scores = image[:, row, column]
            scores = [0.0, scores[0]] if len(scores) == 1 else list(scores)
            total = sum(math.exp(score) for score in scores)
            pixels.append(([math.exp(score) / total for score in scores], int(labels[row, column])))
        images.append(pixels)
    return images


def slow_entropies(logits, mask):
    return [[-math.log(p[label]) for p, label in pixels] for pixels in pixels_of(logits, mask)]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def slow_counts(pixels, label):
    hit = sum(p[label] for p, true in pixels if true == label)
    false = sum(p[label] for p, true in pixels if true != label)
    missed = sum(1 - p[label] for p, true in pixels if true == label)
    return hit, false, missed


def slow_regions(formula, background=False):
    def loss(logits, mask, over):
        images = pixels_of(logits, mask)
        regions = images if over == "image" else [list(chain(*images))]
        labels = range(0 if background else 1, len(images[0][0][0]))
        return mean(formula(*slow_counts(pixels, label)) for pixels in regions for label in labels)

    return loss


def slow_generalised_dice(logits, mask, over):
    images = pixels_of(logits, mask)
    regions = images if over == "image" else [list(chain(*images))]
    losses = []
    for pixels in regions:
        labels = range(len(pixels[0][0]))
        true = [sum(label == t for _, t in pixels) for label in labels]
        rarest = min(t for t in true if t)
        weights = [1 / (t or rarest) ** 2 for t in true]
        counts = [slow_counts(pixels, label) for label in labels]
        overlap = 2 * sum(w * hit for w, (hit, _, _) in zip(weights, counts, strict=True))
        both = sum(w * (hit + false + t) for w, (hit, false, _), t in zip(weights, counts, true, strict=True))
        losses.append(1 - overlap / both)
    return mean(losses)


def slow_penalty(logits, mask, over):
    loss = slow_generalised_dice(logits, mask, over)
    return loss / (1 + 2.5 * (1 - loss))


def slow_sensitivity_specificity(logits, mask, over):
    images = pixels_of(logits, mask)
    regions = images if over == "image" else [list(chain(*images))]
    values = []
    for pixels in regions:
        for label in range(1, len(pixels[0][0])):
            inside = [(1 - p[label]) ** 2 for p, true in pixels if true == label]
            outside = [p[label] ** 2 for p, true in pixels if true != label]
            values.append(0.1 * sum(inside) / (len(inside) + 1) + 0.9 * sum(outside) / (len(outside) + 1))
    return mean(values)


def slow_focal(logits, mask):
    def value(p, true):
        weight = 1 if logits.shape[1] > 1 else 0.25 if true else 0.75
        return -weight * (1 - p[true]) ** 2 * math.log(p[true])

    return mean(value(p, true) for pixels in pixels_of(logits, mask) for p, true in pixels)


def slow_top_k(logits, mask):
    return mean(mean(sorted(image)[-round(len(image) / 10) :]) for image in slow_entropies(logits, mask))


def slow_dice(hit, false, missed):
    return 1 - (2 * hit + 1) / (2 * hit + false + missed + 1)


def slow_combo(logits, mask):
    entropy = mean(value for image in slow_entropies(logits, mask) for value in image)
    return (entropy / 2 + slow_regions(slow_dice)(logits, mask, "batch")) / 2


def slow_exp_log(logits, mask):
    pixels = list(chain(*pixels_of(logits, mask)))
    overlaps = [1 - slow_dice(*slow_counts(pixels, label)) for label in range(1, len(pixels[0][0]))]
    regions = mean((-math.log(overlap)) ** 0.3 for overlap in overlaps)
    number = {label: sum(true == label for _, true in pixels) for label in range(len(pixels[0][0]))}
    each = [math.sqrt(len(pixels) / number[true]) * (-math.log(p[true])) ** 0.3 for p, true in pixels]
    return 0.8 * regions + 0.2 * mean(each)


def slow_distance(logits, mask):
    total = []
    for entropy, labels in zip(slow_entropies(logits, mask), mask.numpy(), strict=True):
        weight = np.ones(labels.shape)
        if len(np.unique(labels)) > 1:
            distance = sum(distance_transform_edt(labels == label) for label in np.unique(labels))
            weight = 3 - 2 * distance / distance.max()
            weight /= weight.mean()
        total.append(mean(np.array(entropy) * weight.ravel()))
    return mean(total)


def slow_boundary(logits, mask):
    values = []
    for pixels, labels in zip(pixels_of(logits, mask), mask.numpy(), strict=True):
        for label in range(1, len(pixels[0][0])):
            inside = labels == label
            distance = distance_transform_edt(~inside) - distance_transform_edt(inside)
            distance = distance / max(labels.shape) if inside.any() and not inside.all() else 0 * distance
            values.append(mean(p[label] * d for (p, _), d in zip(pixels, distance.ravel(), strict=True)))
    return mean(values)


def slow_lovasz_softmax(logits, mask):
    """The Lovasz extension by its definition: errors in falling order times the rise of the set function."""
    images = []
    for pixels in pixels_of(logits, mask):
        labels = sorted({true for _, true in pixels})
        losses = []
        for label in labels:
            errors = [abs((true == label) - p[label]) for p, true in pixels]
            order = sorted(range(len(errors)), key=lambda i: -errors[i])
            wrong, before, loss = set(), 0.0, 0.0
            true_set = {i for i, (_, true) in enumerate(pixels) if true == label}
            for i in order:
                wrong.add(i)
                after = len(wrong) / len(true_set | wrong)  # the Jaccard loss of a prediction wrong in these pixels
                loss += errors[i] * (after - before)
                before = after
            losses.append(loss)
        images.append(mean(losses))
    return mean(images)


WEIGHT = 2.25 / 3.25
SLOW_REGIONS = {
    "dice": slow_regions(slow_dice),
    "jaccard": slow_regions(lambda hit, false, missed: 1 - (hit + 1) / (hit + false + missed + 1)),
    "tversky": slow_regions(lambda hit, false, missed: 1 - (hit + 1) / (hit + 0.3 * false + 0.7 * missed + 1)),
    "focal-tversky": slow_regions(
        lambda hit, false, missed: (1 - (hit + 1) / (hit + 0.3 * false + 0.7 * missed + 1)) ** 0.75
    ),
    "asymmetric": slow_regions(
        lambda hit, false, missed: 1 - (hit + 1) / (hit + (1 - WEIGHT) * false + WEIGHT * missed + 1)
    ),
    "gdice": slow_generalised_dice,
    "penalty-gdice": slow_penalty,
    "sensitivity-specificity": slow_sensitivity_specificity,
}
SLOW_PIXELS = {
    "ce": lambda logits, mask: mean(value for image in slow_entropies(logits, mask) for value in image),
    "focal": slow_focal,
    "topk": slow_top_k,
    "combo": slow_combo,
    "explog": slow_exp_log,
    "distance": slow_distance,
    "boundary": slow_boundary,
}


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("over", ["batch", "image"])
@pytest.mark.parametrize("name", REGIONS)
def test_regions_equal_the_slow_formula(name, over, classes):
    output, mask = deep_output(dtype=torch.float64, classes=classes), mask_with_empty_ones(classes=classes)
    expected = SLOW_REGIONS[name](output.logits, mask, over)
    assert build(name, over)(output, mask).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("name", SLOW_PIXELS)
def test_pixels_equal_the_slow_formula(name, classes):
    output, mask = deep_output(dtype=torch.float64, classes=classes), mask_with_empty_ones(classes=classes)
    assert build(name)(output, mask).item() == pytest.approx(SLOW_PIXELS[name](output.logits, mask), abs=1e-6)


def test_lovasz_of_several_classes_equals_its_definition():
    output, mask = deep_output(dtype=torch.float64, size=6, classes=3), mask_with_empty_ones(size=6, classes=3)
    assert build("lovasz")(output, mask).item() == pytest.approx(slow_lovasz_softmax(output.logits, mask), abs=1e-9)


# ------------------------------------------------------------------- by hand, and what every loss keeps


def test_values_by_hand():
    output, mask = Output(torch.zeros(1, 1, 1, 2)), torch.tensor([[[1, 0]]])
    assert build("ce")(output, mask).item() == pytest.approx(math.log(2))
    assert build("lovasz")(output, mask).item() == pytest.approx(2)  # both errors are 1, weights sum to 1
    assert build("dice")(output, mask).item() == pytest.approx(1 - 2 / 3)  # hit, false, missed: a half each
    assert build("jaccard")(output, mask).item() == pytest.approx(1 - 1.5 / 2.5)
    assert build("focal")(output, mask).item() == pytest.approx(math.log(2) / 8)  # (0.25 + 0.75) / 2 of a quarter


@pytest.mark.parametrize("text", ["lovasz+0.5ce", "lovasz + 0.5*ce", "1 lovasz+.5 * ce"])
def test_a_weighted_sum(text):
    output, mask = deep_output(), mask_with_empty_ones()
    expected = build("lovasz")(output, mask) + 0.5 * build("ce")(output, mask)
    assert torch.equal(build(text)(output, mask), expected)


@pytest.mark.parametrize("text", ["dise", "0.5", "", "dice+", "dice-ce", "dice 0.5", "2x dice"])
def test_what_is_no_sum_of_losses_is_refused(text):
    with pytest.raises(BadInput, match="--loss="):
        parse(text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "classes"), CASES)
def test_every_loss_is_a_float32_scalar_with_gradients(name, classes, dtype):
    output, mask = deep_output(dtype=dtype, classes=classes), mask_with_empty_ones(classes=classes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = build(name)(output, mask)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    levels = tuple(level.float() for level in output.level_logits)
    assert torch.equal(loss, build(name)(Output(output.logits.float(), levels, output.image_logits.float()), mask))
    loss.backward()
    used = [output.logits, *output.level_logits, output.image_logits] if name == "saltnet" else [output.logits]
    assert all(tensor.grad.isfinite().all() and tensor.grad.any() for tensor in used)


@pytest.mark.parametrize(("name", "classes"), [case for case in CASES if case[0] != "boundary"])
def test_every_loss_falls_to_the_right_answer(name, classes):
    mask = mask_with_empty_ones(classes=classes)
    logits = torch.zeros(4, classes, 12, 12, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(80):
        optimizer.zero_grad()
        build(name)(Output(logits), mask).backward()
        optimizer.step()
    predicted = logits[:, 0] > 0 if classes == 1 else logits.argmax(dim=1)
    assert torch.equal(predicted.to(torch.uint8), mask)


def perfect(mask, classes, certainty=20.0):
    if classes == 1:
        return certainty * (2.0 * mask[:, None].float() - 1)
    return certainty * torch.nn.functional.one_hot(mask.long(), classes).movedim(-1, 1).float()


@pytest.mark.parametrize(("name", "classes"), CASES)
@pytest.mark.parametrize("kind", ["some", "empty", "full"])
def test_the_perfect_prediction_is_the_minimum(name, classes, kind):
    """Among it, everything else that is certain and constant, and chance; empty and full masks stay finite."""
    mask = mask_with_empty_ones(classes=classes)
    mask = mask if kind == "some" else torch.full_like(mask, int(kind == "full"))
    loss = build(name)
    best = loss(Output(perfect(mask, classes)), mask).item()
    constant = [loss(Output(perfect(torch.full_like(mask, label), classes)), mask) for label in range(max(2, classes))]
    others = [*constant, loss(Output(deep_output(classes=classes).logits.detach()), mask)]
    assert all(math.isfinite(other) for other in others)
    assert best <= min(others) + 1e-6
    if name not in ("boundary", "lovasz", "saltnet"):  # these want a margin, or go below 0
        assert best == pytest.approx(0, abs=0.02 if name == "explog" else 2e-3)
