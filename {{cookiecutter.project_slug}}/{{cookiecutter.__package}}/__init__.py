"""An agent for Google's Agent Development Kit (ADK), and its sessions."""

from __future__ import annotations

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """Load `agent`, in which ADK finds `root_agent`, on first use.

    Code that needs only the sessions does not load the agent.
    """
    if name == "agent":
        return importlib.import_module(f"{__name__}.agent")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
