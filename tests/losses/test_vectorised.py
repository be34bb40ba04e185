"""No loss and no metric loops over images: the work is as many operations for 32 of them as for two."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from losses import LOSSES, build, metric
from nets.output import Output


class Counter(TorchDispatchMode):
    """Counts torch operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += 1
        return function(*arguments, **(keywords or {}))


def operations(work: Callable[[], object]) -> int:
    with Counter() as counter:
        work()
    return counter.count


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str, monkeypatch: pytest.MonkeyPatch):
    sorts = []
    monkeypatch.setattr(np, "sort", lambda *words, sort=np.sort, **flags: sorts.append(1) or sort(*words, **flags))
    counts = []
    for num in (2, 32):
        logits = torch.randn(num, 1, 9, 9, requires_grad=True)
        output = Output(logits, (logits, logits), logits.mean((1, 2, 3)))
        mask = torch.randint(0, 2, (num, 9, 9), dtype=torch.uint8)
        sorts.clear()
        counts.append((operations(lambda output=output, mask=mask: build(name)(output, mask).backward()), len(sorts)))
    assert counts[0] == counts[1]


def test_metric(monkeypatch: pytest.MonkeyPatch):
    sums, counts = [], []

    class Adding:
        @staticmethod
        def reduce(*words, **flags):
            sums.append(1)
            return np.ndarray.sum(*words, **flags)

    monkeypatch.setattr(metric.np, "add", Adding)
    for num in (2, 32):
        masks = torch.rand(2, num, 9, 9) > 0.5
        sums.clear()
        counts.append((operations(lambda masks=masks: metric.tenths(*masks)), len(sums)))
    assert counts[0] == counts[1] and counts[0][1] > 0
