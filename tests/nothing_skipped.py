"""What --gpu does to a run of the tests: see conftest.py."""

from __future__ import annotations

import re
from typing import Any

import pytest


class NothingSkipped:
    """Fails a run in which a test was skipped that is marked `gpu`, or whose reason speaks of GPUs."""

    SPEAKS = re.compile(r"\b(GPU|CUDA|CuPy|cupy)\b")

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.note(report, marked="gpu" in report.keywords)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.note(report, marked=False)

    def note(self, report: Any, marked: bool) -> None:
        if report.skipped:
            reason = report.longrepr[2]  # (file, line, reason)
            if marked or self.SPEAKS.search(reason):
                self.skipped.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for line in self.skipped:
            terminalreporter.write_line(f"--gpu: must not be skipped: {line}", red=True)
