"""The last line of `make faults`: its counts."""

import pytest


def pytest_unconfigure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    passed, failed, errors, skipped = (
        len(reporter.stats.get(outcome, ())) for outcome in ("passed", "failed", "error", "skipped")
    )
    print(f"faults: {passed} passed, {failed + errors} failed, {skipped} skipped")
