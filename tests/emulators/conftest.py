"""Where EMULATORS_REQUIRED is set (`.ci/run` does, where gcloud is installed) a test skipped here has failed."""

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure that says why it was skipped."""
    report = yield
    if report.skipped and os.environ.get("EMULATORS_REQUIRED"):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid}: skipped, and EMULATORS_REQUIRED is set: {call.excinfo and call.excinfo.value}"
        )
    return report
