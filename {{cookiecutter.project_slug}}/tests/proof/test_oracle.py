"""Arbitrary calls, in arbitrary order, end as they do in memory; and bugs that are planted are found."""

import asyncio
from collections.abc import Iterator

import pytest
from google.adk.platform import time as platform_time
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from {{ cookiecutter.__package }}.sessions import create_session_service

from .figures import Figure, long_or_short, repetitions
from .oracle import Oracle, World
from .planted import PLANTED, Planted

BOUNDS = settings(
    max_examples=repetitions(400, 20),
    stateful_step_count=long_or_short(50, 25),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def world(uri: str) -> Iterator[World]:
    """Two services of one database: one that keeps what it has decoded, and one that does not."""
    services = [create_session_service(uri), create_session_service(uri, cache_mb=0)]
    world = World(services, asyncio.Runner())
    platform_time.set_time_provider(lambda: world.now)  # the runner looks at the clock of here
    with world.runner:
        yield world
        for service in services:
            world.run(service.close())
    platform_time.reset_time_provider()


def test_everything_is_as_it_is_in_memory(world: World, figure: Figure) -> None:
    run_state_machine_as_test(lambda: Oracle(world), settings=BOUNDS)  # type: ignore[arg-type]
    figure("steps", world.steps.total())


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_found(world: World, planted: type[Planted], figure: Figure) -> None:
    """A comparison that nothing can fail proves nothing."""
    for service in world.services:
        service.store = planted(service.store)  # type: ignore[assignment]
    bounds = settings(
        BOUNDS,
        max_examples=1_000,
        stateful_step_count=50,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(lambda: Oracle(world), settings=bounds)  # type: ignore[arg-type]
    figure("steps", world.steps.total())
