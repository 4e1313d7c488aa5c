"""Fixtures of the proof: figures, and hypothesis without deadlines."""

import hypothesis
import pytest

from .figures import Figure

# No test fails for being slow.
hypothesis.settings.register_profile(
    "project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("project")


@pytest.fixture
def figure(record_property: Figure) -> Figure:
    """Record a figure of a test for the summary."""
    return record_property


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures: the numbers of steps, pairs, kills and faults."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        if report.user_properties
    ]
    if reports:
        terminalreporter.section("figures")
    for report in reports:
        told = ", ".join(f"{count} {what}" for what, count in report.user_properties)
        terminalreporter.write_line(f"{report.nodeid.partition('::')[2]}: {told}")
