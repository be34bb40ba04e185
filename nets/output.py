"""What every net returns."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """Logits, before the sigmoid, and the further ones that deep supervision uses."""

    logits: Tensor  # (N, classes, H, W)
    level_logits: tuple[Tensor, ...] = ()  # one per decoder level, each (N, classes, H, W)
    image_logits: Tensor | None = None  # (N,), whether the image has any foreground

    def map(self, function: Callable[[Tensor], Tensor]) -> "Output":
        """`function` applied to every pixel map; the image logits stay."""
        levels = tuple(function(level) for level in self.level_logits)
        return self._replace(logits=function(self.logits), level_logits=levels)
