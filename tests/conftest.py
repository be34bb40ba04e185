from pathlib import Path

import pytest
from competition import write_competition


@pytest.fixture
def tiny_competition(tmp_path: Path) -> Path:
    """12 labelled and 6 test tiles of 101 x 101."""
    return write_competition(tmp_path / "data")
