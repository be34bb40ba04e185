import numpy as np
import pytest
import torch

from datasets import borders
from datasets.borders import Best


def cut(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Tiles of an image, row by row."""
    size = image.shape[0] // rows
    return image.reshape(rows, size, columns, size).swapaxes(1, 2).reshape(-1, size, size)


def smooth_noise(rows: int, columns: int, size: int = 40, seed: int = 0) -> np.ndarray:
    """Tiles of smooth noise, each with a contrast and brightness of its own."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.standard_normal((1, 1, rows * size, columns * size)))
    image = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)[0, 0].numpy()
    tiles = cut(image / image.std(), rows, columns)
    gain, offset = rng.uniform(20, 40, (len(tiles), 1, 1)), rng.uniform(100, 150, (len(tiles), 1, 1))
    return np.clip(gain * tiles + offset, 0, 255).astype(np.uint8)


def pairs(edges: borders.Edges, least: float) -> set[tuple[int, int]]:
    strong = edges.strength >= least
    return set(zip(edges.first[strong].tolist(), edges.second[strong].tolist(), strict=True))


def test_neighbours_are_found_whatever_the_contrast_of_tiles():
    rows, columns = 8, 12
    down, right = borders.down_and_right(smooth_noise(rows, columns))
    number = np.arange(rows * columns).reshape(rows, columns)
    true_down = set(zip(number[:-1].ravel().tolist(), number[1:].ravel().tolist(), strict=True))
    true_right = set(zip(number[:, :-1].ravel().tolist(), number[:, 1:].ravel().tolist(), strict=True))
    for edges, truth in ((down, true_down), (right, true_right)):
        found = pairs(edges, 0.9)
        assert found <= truth and len(found) >= 0.97 * len(truth)  # a false pair may come before the last true ones


def test_strangers_are_not_believed():
    tiles = smooth_noise(20, 20)[np.random.default_rng(1).permutation(400)[:100]]  # a quarter: few neighbours are left
    shifted = tiles[:, 2:-2, 2:-2]  # and these no longer touch
    for edges in borders.down_and_right(np.ascontiguousarray(shifted)):
        assert (edges.strength >= 0.95).sum() <= 1


def test_edges_are_sorted_and_each_tile_has_its_best():
    tiles = smooth_noise(4, 5)
    for edges in borders.down_and_right(tiles):
        order = list(zip(edges.first.tolist(), edges.second.tolist(), strict=True))
        assert order == sorted(set(order))
        assert set(edges.first) == set(range(20)) == set(edges.second)
        assert ((edges.strength >= 0) & (edges.strength <= 1)).all()
        assert (edges.first != edges.second).all()


def slow_best(distances: torch.Tensor) -> Best:
    values, order = distances.sort(dim=1)
    return Best(order[:, 0], values[:, 0], values[:, 1])


@pytest.mark.parametrize("chunk", [3, 7, 100])
def test_best_partners_agree_with_a_whole_matrix(chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(borders, "CHUNK", chunk)
    monkeypatch.setattr(borders, "VARIATES", 6)
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 20, 6, generator=generator)
    correlation = torch.linspace(0.9, 0.1, 6)
    whole = torch.empty(20, 20, dtype=torch.float64)
    freedom = borders.FREEDOM
    for i in range(20):
        for j in range(20):
            x, y = a[i].double(), b[j].double()
            joint = ((x**2 + y**2 - 2 * correlation * x * y) / (1 - correlation**2)).sum()
            # log of Student's densities: both together against each alone
            together = -(2 * 6 + freedom) / 2 * torch.log1p(joint / freedom)
            alone = sum(-(6 + freedom) / 2 * torch.log1p((z**2).sum() / freedom) for z in (x, y))
            whole[i, j] = torch.inf if i == j else -(together - alone)
    rows, columns = borders.best(a, b, correlation)
    for found, expected in ((rows, slow_best(whole)), (columns, slow_best(whole.T))):
        assert torch.equal(found.partner, expected.partner)
        torch.testing.assert_close(
            borders.log_ratio(found, 6).double(), expected.second - expected.distance, atol=1e-3, rtol=0
        )


def test_strengths_by_hand():
    # margins 1 and 2 occur by chance as often as not; 5 to 13 never do, but for the false pairs that are added
    margin = np.array([1.0, 2, *range(5, 14), -1])
    found = borders.strengths(margin, np.array([1.0, 2]))
    assert found[[0, 1, 11]].tolist() == [0, 0, 0]
    np.testing.assert_allclose(found[2:11], 6 / 9)  # 9 found, 3 by chance: 6 of 9 are true


def test_few_pairs_are_worth_nothing():
    assert borders.strengths(np.array([-1.0, 50.0, 60.0, 70.0]), np.empty(0)).tolist() == [0] * 4


def test_two_tiles_have_nothing_to_be_compared_with():
    for edges in borders.down_and_right(smooth_noise(1, 2)):
        assert not edges.strength.any()
