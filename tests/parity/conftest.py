"""Everything here is golden; the run ends with how many cases passed, failed and were skipped, and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before -m golden chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.golden)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told = {name: _golden(terminalreporter, name) for name in ("passed", "failed", "error", "skipped")}
    if not any(told.values()):
        return
    terminalreporter.section("golden numbers")
    failed = len(told["failed"]) + len(told["error"])
    terminalreporter.line(f"{len(told['passed'])} passed, {failed} failed, {len(told['skipped'])} skipped")
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in told["skipped"])
    for reason, count in sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0])):
        terminalreporter.line(f"  {count:4d} skipped: {reason}")


def _golden(reporter: pytest.TerminalReporter, outcome: str) -> list[pytest.TestReport]:
    return [r for r in reporter.stats.get(outcome, []) if "golden" in getattr(r, "keywords", {})]
