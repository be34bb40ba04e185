"""A competition of forty tiles, the run on it that nothing disturbed, and the last lines of `make faults`."""

from pathlib import Path

import pytest
from small_chain import make

from datasets import synthetic


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("competition") / "data"
    synthetic.write(synthetic.Options(data=str(folder), num_train=40, num_test=12))
    return folder


@pytest.fixture(scope="session")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("undisturbed")
    made = make(runs, data, "whole")
    assert made.returncode == 0, made.stderr
    return runs / "whole"


def pytest_unconfigure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not reporter:
        return  # one of the processes that the tests are dealt to
    for report in reporter.stats.get("passed", ()):
        for name, value in report.user_properties:
            print(f"{name}: {value}")
    passed, failed, errors, skipped = (
        len(reporter.stats.get(outcome, ())) for outcome in ("passed", "failed", "error", "skipped")
    )
    print(f"faults: {passed} passed, {failed + errors} failed, {skipped} skipped")
