"""Any calls in any order give the same results as ADK's in-memory service, and planted bugs are found."""

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
    """Two services on one database: one with a cache and one without."""
    services = [create_session_service(uri), create_session_service(uri, cache_mb=0)]
    world = World(services, asyncio.Runner())
    platform_time.set_time_provider(lambda: world.now)
    with world.runner:
        yield world
        for service in services:
            world.run(service.close())
    platform_time.reset_time_provider()


def test_service_behaves_like_the_in_memory_service(world: World, figure: Figure) -> None:
    run_state_machine_as_test(lambda: Oracle(world), settings=BOUNDS)  # type: ignore[arg-type]
    figure("steps", world.steps.total())


@pytest.mark.parametrize("planted", PLANTED)
def test_planted_bug_is_found(world: World, planted: type[Planted], figure: Figure) -> None:
    """A check proves something only if it can fail."""
    for service in world.services:
        service.store = planted(service.store.innermost)  # type: ignore[assignment]
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
