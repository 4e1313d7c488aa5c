"""What the proof adds: figures of what was counted, and hypothesis without time limits."""

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
    """Notes what a test has counted, for the summary below."""
    return record_property


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures: how many steps, pairs, kills and faults it was."""
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
