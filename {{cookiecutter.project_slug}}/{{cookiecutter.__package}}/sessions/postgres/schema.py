"""The tables and their migrations.

Names and keys are UTF-8 bytes, because PostgreSQL's text cannot store every string. Indexes use digests,
because rows of an index must be short. In `psql`:

    SELECT convert_from(session_id, 'UTF8') FROM sessions.sessions WHERE sha256(user_id) = sha256('ada');
    SELECT convert_from(value, 'UTF8') FROM sessions.user_state
    WHERE app_digest = sha256('my_agent') AND user_digest = sha256('ada');
"""

import asyncio

import asyncpg

from ..errors import ConfigurationError
from .connections import Connections
from .statements import in_schema

MIGRATIONS = (
    """
    CREATE TABLE $schema.schema_version (version integer NOT NULL);
    INSERT INTO $schema.schema_version VALUES (0);
    CREATE TABLE $schema.sessions (
        session_number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        app_name bytea NOT NULL,
        user_id bytea NOT NULL,
        session_id bytea NOT NULL,
        incarnation text NOT NULL,
        revision bigint NOT NULL,
        updated_at float8 NOT NULL,
        ttl_seconds bigint NOT NULL,
        expires_at float8,
        -- Some minutes after the expiry, in steps of minutes: a value in an index that changed with
        -- every append would make every append write to all indexes.
        removable_at bigint
    ) WITH (fillfactor = 70);
    CREATE UNIQUE INDEX sessions_by_id ON $schema.sessions
        (sha256(app_name), sha256(user_id), sha256(session_id));
    CREATE INDEX sessions_by_removable_at ON $schema.sessions (removable_at)
        WHERE removable_at IS NOT NULL;
    CREATE TABLE $schema.events (
        session_number bigint NOT NULL REFERENCES $schema.sessions ON DELETE CASCADE,
        revision bigint NOT NULL,
        timestamp float8 NOT NULL,
        data bytea NOT NULL,
        PRIMARY KEY (session_number, revision)
    );
    CREATE TABLE $schema.session_state (
        session_number bigint NOT NULL REFERENCES $schema.sessions ON DELETE CASCADE,
        key_digest bytea NOT NULL,
        key bytea NOT NULL,
        value bytea NOT NULL,
        PRIMARY KEY (session_number, key_digest)
    ) WITH (fillfactor = 90);
    CREATE TABLE $schema.user_state (
        app_digest bytea NOT NULL,
        user_digest bytea NOT NULL,
        key_digest bytea NOT NULL,
        user_id bytea NOT NULL,
        key bytea NOT NULL,
        value bytea NOT NULL,
        PRIMARY KEY (app_digest, user_digest, key_digest)
    ) WITH (fillfactor = 90);
    CREATE TABLE $schema.app_state (
        app_digest bytea NOT NULL,
        key_digest bytea NOT NULL,
        key bytea NOT NULL,
        value bytea NOT NULL,
        PRIMARY KEY (app_digest, key_digest)
    ) WITH (fillfactor = 70);
    """,
)
"""The steps from each version to the next. Only append to this list."""

LOCK_CLASS = 0x41444B53
"""The class of our advisory locks (`ADKS` in ASCII)."""
MIGRATION_SECONDS = 300.0
"""Seconds that a migration may take, here or in another process."""


async def prepare(connections: Connections) -> None:
    """Migrate the tables to the version of this program, unless another process does.

    Raises:
        ConfigurationError: the schema belongs to another program, or to a newer version of this one.
    """
    if await read_version(connections) < len(MIGRATIONS):
        async with connections.connection() as connection, asyncio.timeout(MIGRATION_SECONDS):
            await _migrate(connection.raw, connections.options.schema)


async def read_version(connections: Connections) -> int:
    """Return the version of the tables, 0 where there are none.

    Raises:
        ConfigurationError: the schema belongs to another program, or to a newer version of this one.
    """
    options = connections.options
    async with connections.connection() as connection, asyncio.timeout(options.timeout):
        return await _version(connection.raw, options.schema)


async def _migrate(raw: "asyncpg.Connection[asyncpg.Record]", schema: str) -> None:
    async with raw.transaction(isolation="read_committed"):
        # The lock ends with the transaction, after which a proxy may give the connection to another client.
        await raw.fetch("SELECT pg_advisory_xact_lock($1, hashtext($2))", LOCK_CLASS, schema)
        version = await _version(raw, schema)
        if not await raw.fetch("SELECT FROM pg_namespace WHERE nspname = $1", schema):
            await raw.execute(in_schema("CREATE SCHEMA $schema", schema))
        for step in MIGRATIONS[version:]:
            await raw.execute(in_schema(step, schema))
        done = f"UPDATE $schema.schema_version SET version = {len(MIGRATIONS)}"
        await raw.execute(in_schema(done, schema))


async def _version(raw: "asyncpg.Connection[asyncpg.Record]", schema: str) -> int:
    tables = await raw.fetch(
        "SELECT relname::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE nspname = $1 AND relname IN ('schema_version', 'sessions', 'events') ORDER BY 1",
        schema,
    )
    names = [name for (name,) in tables]
    if not names:
        return 0
    if "schema_version" not in names:
        raise ConfigurationError(
            f"Schema {schema!r} of the database has tables of another program ({', '.join(names)}):"
            " name a schema for sessions alone with the option schema."
        )
    version = int(
        await raw.fetchval(in_schema("SELECT version FROM $schema.schema_version", schema))
    )
    if version > len(MIGRATIONS):
        raise ConfigurationError(
            f"Schema {schema!r} of the database was written by a newer version of this program (version"
            f" {version}, this one knows {len(MIGRATIONS)}): upgrade the program, or name another schema."
        )
    return version
