"""Schedules against values worked by hand."""

from types import SimpleNamespace

import pytest

from training.schedules import SCHEDULES, cycle_of

CONFIG = SimpleNamespace(epochs=250, cycles=5, patience=2, milestones="100 200", schedule="clr")


@pytest.mark.parametrize(
    ("name", "progress", "factor"),
    [
        ("noam", 0, 0.1),
        ("noam", 1.9, 0.1),
        ("noam", 5, 0.5),
        ("noam", 10, 1),
        ("noam", 250, 0.2),
        ("constant", 77, 1),
        ("cosine", 0, 1),
        ("cosine", 125, 0.5),
        ("cosine", 250, 0),
        ("step", 0, 1),
        ("step", 84, 0.1),
        ("step", 249, 0.01),
        ("milestones", 99.9, 1),
        ("milestones", 100, 0.1),
        ("milestones", 200, 0.01),
        ("clr", 0, 1),
        ("clr", 25, 0.55),
        ("clr", 49.999999, 0.1),
        ("clr", 50, 1),
        ("onecycle", 0, 0.04),
        ("onecycle", 62.5, 1),
        ("onecycle", 156.25, 0.5),
        ("onecycle", 250, 0),
    ],
)
def test_hand_worked(name: str, progress: float, factor: float):
    assert SCHEDULES[name](CONFIG, progress, []) == pytest.approx(factor, abs=1e-6)


def test_plateau_waits_for_patience_and_starts_counting_anew():
    losses = [1.0, 0.9, 0.95, 0.95]
    assert SCHEDULES["plateau"](CONFIG, 4, losses) == 1
    assert SCHEDULES["plateau"](CONFIG, 5, [*losses, 0.95]) == pytest.approx(0.1)
    assert SCHEDULES["plateau"](CONFIG, 6, [*losses, 0.95, 0.8]) == pytest.approx(0.1)


def test_cycles_split_the_epochs_evenly():
    assert [cycle_of(CONFIG, epoch) for epoch in (0, 49, 50, 249)] == [0, 0, 1, 4]
