"""What was chosen for this project: the backend, its URI scheme and how long sessions live.

This file is yours to change. A later version of the template changes the rest of this folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .store import SessionStore
    from .uri import SessionURI

{%- set backend = cookiecutter._backends[cookiecutter.backend] %}

APP_NAME = {{ cookiecutter.__package | tojson }}
"""ADK calls the app by this name, and sessions are stored under it: the package of the agent."""

AGENT_FOLDER = Path(__file__).resolve().parents[1]
"""What ADK's commands serve if no folder is named."""

BACKEND_TITLE = {{ backend.title | tojson }}

DB_SYSTEM = {{ backend.store.system | tojson }}
"""What traces and metrics call the database (`db.system.name`)."""

SCHEME = {{ cookiecutter.scheme | tojson }}
"""The scheme of session URIs: what follows it is parsed by the store."""

{% if backend.suffixes | length == 1 -%}
SCHEMES = ({{ (cookiecutter.scheme ~ backend.suffixes[0]) | tojson }},)
{%- else -%}
SCHEMES = (
{%- for suffix in backend.suffixes %}
    {{ (cookiecutter.scheme ~ suffix) | tojson }},
{%- endfor %}
)
{%- endif %}
"""All spellings of the scheme; what is added to SCHEME selects a kind of connection."""

{{ backend.default_uri.replace("{scheme}", cookiecutter.scheme) | assigned_to("DEFAULT_URI") }}
"""Used where neither an argument nor SESSION_SERVICE_URI names another."""

DEFAULT_TTL = {{ cookiecutter.session_ttl | tojson }}
"""How long a session lives after its last event: 90s, 30m, 24h, 7d, seconds, or 0 for never."""


def open_store(uri: "SessionURI") -> "SessionStore":
    """Return the store that the URI describes; nothing is connected before its first use."""
    from .{{ backend.store.module }}.store import {{ backend.store.class }}

    return {{ backend.store.class }}.from_uri(uri)
