"""Losses by name, and weighted sums of them: "dice", "lovasz+0.5ce", "0.7*tversky + 0.3*focal".

Each takes what a net returns and the mask (N, H, W), 0 or 1, or 0 .. K - 1 for K classes, and gives a float32 scalar.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from command import BadInput, choose
from losses import lovasz, pixels, regions
from losses.supervision import deep_supervision

Loss = Callable[[Any, Tensor], Tensor]


def lovasz_of_classes(logits: Tensor, mask: Tensor) -> Tensor:
    """The symmetric hinge for one class, the softmax form for several."""
    one = logits.shape[1] == 1
    return lovasz.symmetric_lovasz(logits[:, 0], mask) if one else lovasz.lovasz_softmax(logits, mask)


PIXELS = {
    "ce": pixels.cross_entropy,
    "focal": pixels.focal,
    "topk": pixels.top_k,
    "combo": pixels.combo,
    "explog": pixels.exp_log,
    "distance": pixels.distance_entropy,
    "boundary": pixels.boundary,
    "lovasz": lovasz_of_classes,
}
REGIONS = {  # what these sum over is an option: the batch or each image
    "dice": regions.dice,
    "jaccard": regions.jaccard,
    "tversky": regions.tversky,
    "focal-tversky": regions.focal_tversky,
    "asymmetric": regions.asymmetric,
    "gdice": regions.generalised_dice,
    "penalty-gdice": regions.penalty_dice,
    "sensitivity-specificity": regions.sensitivity_specificity,
}
LOSSES = ["saltnet", *PIXELS, *REGIONS]  # saltnet: deeply supervised, for one class
TERM = re.compile(r"\s*(?:(\d*\.?\d+(?:e-?\d+)?)\s*\*?\s*)?([a-z][a-z-]*)\s*")  # "0.5ce", "0.5 * ce", "ce"


def build(text: str, over: str = "batch") -> Loss:
    """The loss of that name, or the weighted sum; `over` is what region losses sum over, "batch" or "image".

    Raises BadInput for a text that is neither.
    """
    terms = [(weight, term(name, over)) for weight, name in parse(text)]
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]

    def loss(output: Any, mask: Tensor) -> Tensor:
        return sum(weight * function(output, mask) for weight, function in terms)

    return loss


def parse(text: str) -> list[tuple[float, str]]:
    """Weights and names. Raises BadInput for what is no sum of LOSSES."""
    terms = []
    for part in text.split("+"):
        match = TERM.fullmatch(part)
        if not match:
            raise BadInput(f"--loss={text} is no sum of losses: write for example dice or lovasz+0.5ce")
        choose("loss", match[2], LOSSES)
        terms.append((float(match[1] or 1), match[2]))
    return terms


def term(name: str, over: str) -> Loss:
    if name == "saltnet":
        return deep_supervision
    function = PIXELS[name] if name in PIXELS else partial(REGIONS[name], over=over)
    return lambda output, mask: function(output.logits, mask)
