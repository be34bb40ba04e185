import pandas as pd
import pytest
import torch

from datasets.mosaic import COLUMNS
from inference import windows
from inference.windows import Pair


def waves(height: int, width: int) -> torch.Tensor:
    """A grey picture (1, H, W) in 0..1 without period."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (0.5 + 0.25 * torch.sin(rows**1.3 / 5 + columns / 7) + 0.2 * torch.cos(columns**1.2 / 4))[None].float()


@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize("side", [20, 21])
def test_a_window_is_what_lies_across_the_border(below: bool, side: int):
    whole = waves(2 * side, side)
    first, second = whole[:, :side], whole[:, side:]
    expected = whole[:, side // 2 : side // 2 + side]
    if not below:
        first, second, expected = first.mT, second.mT, expected.mT
    found = windows.window(first, second, below)
    assert found.min() == 0 and found.max() == pytest.approx(1)
    both = torch.stack([found.flatten(), expected.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9  # up to contrast, which four lines tell only roughly


def test_contrasts_are_brought_together():
    whole = waves(40, 20)
    first, second = whole[:, :20], whole[:, 20:]
    plain = windows.window(first, second, True)
    stretched = windows.window(0.5 * first + 0.3, second, True)
    torch.testing.assert_close(stretched, plain, atol=0.03, rtol=0)


def test_flat_tiles_stay_finite():
    assert torch.isfinite(windows.window(torch.full((1, 8, 8), 0.5), torch.full((1, 8, 8), 0.2), True)).all()


TABLE = pd.DataFrame(
    [("a", 0, 0, 0, 1.0), ("b", 0, 1, 0, 1.0), ("c", 0, 0, 1, 1.0), ("d", 0, 1, 1, 0.9), ("e", 1, 0, 0, 1.0)],
    columns=list(COLUMNS),
)


def test_borders_of_wanted_and_well_placed_tiles():
    assert windows.pairs(TABLE, {"a"}) == [Pair("a", "b", True), Pair("a", "c", False)]
    assert windows.pairs(TABLE, {"c", "d"}) == [Pair("a", "c", False)]
    assert windows.pairs(TABLE, {"e"}) == []


@pytest.mark.parametrize("below", [True, False])
def test_windows_say_most_at_the_border_and_nothing_where_they_end(below: bool):
    images = {"a": torch.rand(1, 9, 9), "b": torch.rand(1, 9, 9)}
    asked = []

    def predict(batch: torch.Tensor) -> torch.Tensor:
        asked.append(len(batch))
        return torch.ones(len(batch), 9, 9)

    said = windows.say([Pair("a", "b", below)] * 3, {"a", "b"}, images.get, predict, batch=2)
    assert asked == [2, 1]
    a, b = (said[name].weight if below else said[name].weight.T for name in ("a", "b"))
    assert (a[:4] == 0).all() and (b[4:] == 0).all()
    assert (a[4:].diff(dim=0) > 0).all() and (b[:4].diff(dim=0) < 0).all()
    assert a[-1].max() > 2.8 and a[4].max() < 0.2  # of three windows
    torch.testing.assert_close(said["a"].total, said["a"].weight)
    blended = said["a"].blend(torch.zeros(9, 9))
    assert blended.max() < 0.76 and blended.min() == 0


def test_only_wanted_tiles_are_spoken_of():
    images = {"a": torch.rand(1, 9, 9), "b": torch.rand(1, 9, 9)}
    said = windows.say([Pair("a", "b", True)], {"b"}, images.get, lambda batch: batch[:, 0], batch=4)
    assert list(said) == ["b"]
