"""The configuration of sessions: the backend, the URI scheme and the time to live.

You may change this file. The rest of this folder belongs to the template.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .store import SessionStore
    from .uri import SessionURI

{%- set backend = cookiecutter._backends[cookiecutter.backend] %}

APP_NAME = {{ cookiecutter.__package | tojson }}
"""The package of the agent, and the app name of its sessions."""

AGENT_FOLDER = Path(__file__).resolve().parents[1]
"""The folder that ADK's commands serve by default."""

BACKEND_TITLE = {{ backend.title | tojson }}

DB_SYSTEM = {{ backend.store.system | tojson }}
"""What traces and metrics call the database (`db.system.name`)."""

SCHEME = {{ cookiecutter.scheme | tojson }}
"""The scheme of session URIs."""

{% if backend.suffixes | length == 1 -%}
SCHEMES = ({{ (cookiecutter.scheme ~ backend.suffixes[0]) | tojson }},)
{%- else -%}
SCHEMES = (
{%- for suffix in backend.suffixes %}
    {{ (cookiecutter.scheme ~ suffix) | tojson }},
{%- endfor %}
)
{%- endif %}
"""SCHEME with all suffixes. A suffix selects a kind of connection."""

{{ backend.default_uri.replace("{scheme}", cookiecutter.scheme) | assigned_to("DEFAULT_URI") }}
"""The session URI, unless an argument or SESSION_SERVICE_URI names another."""

DEFAULT_TTL = {{ cookiecutter.session_ttl | tojson }}
"""The time to live of a session after its last event: 90s, 30m, 24h, 7d, seconds, or 0 for ever."""


def open_store(uri: "SessionURI") -> "SessionStore":
    """Return the store of the URI. It connects on first use."""
    from .{{ backend.store.module }}.store import {{ backend.store.class }}

    return {{ backend.store.class }}.from_uri(uri)
