from pathlib import Path

import pytest
from competition import write_competition
from small_run import SMALL

from datasets import folds
from training.config import Config


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A config over 12 tiles in 3 folds, its runs folder under tmp_path."""
    monkeypatch.setenv("SALTWORKS_RUNS", str(tmp_path / "runs"))
    data = write_competition(tmp_path / "data")
    folds.write(folds.Options(data=str(data), run="small", num_folds=3))
    return Config(data=str(data), run="small", **SMALL)
