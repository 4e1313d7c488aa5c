"""SQL statements. Each is one atomic operation of `store.py`.

`in_schema` replaces `$schema` by the schema of the tables. The first parameters are the app, the user and the
session, in this order. Names are compared by their digests, which the indexes have.
"""

from functools import cache

SESSION, APP_STATE, USER_STATE, SESSION_STATE, EVENT = range(5)
"""The kinds of rows of `READ_LIVE`: a session, a value of state, or an event."""

THIS_SESSION = (
    "sha256(app_name) = sha256($1) AND sha256(user_id) = sha256($2)"
    " AND sha256(session_id) = sha256($3)"
)
SESSION_COLUMNS = "user_id, session_id, incarnation, revision, updated_at, ttl_seconds, expires_at"


def _live(now: str) -> str:
    return f"(expires_at IS NULL OR expires_at > {now}::float8)"


def _removable(expires_at: str) -> str:
    """Return a time five to ten minutes after the expiry, because the clock of a process may be slow."""
    return f"(floor({expires_at} / 300) + 2) * 300"


@cache
def in_schema(sql: str, schema: str) -> str:
    """Return a statement for one schema."""
    quoted = '"' + schema.replace('"', '""') + '"'
    return sql.replace("$schema", quoted)


READ_LIVE = f"""
    SELECT {SESSION} AS kind, session_number, user_id AS owner, session_id AS key,
        NULL::bytea AS value, revision, updated_at AS timestamp, incarnation, ttl_seconds, expires_at
    FROM live
    UNION ALL
    SELECT {APP_STATE}, NULL, NULL, key, value, NULL, NULL, NULL, NULL, NULL
    FROM $schema.app_state WHERE app_digest = sha256($1) AND EXISTS (SELECT FROM live)
    UNION ALL
    SELECT {USER_STATE}, NULL, user_digest, key, value, NULL, NULL, NULL, NULL, NULL
    FROM $schema.user_state
    WHERE app_digest = sha256($1) AND user_digest IN (SELECT sha256(user_id) FROM live)
    UNION ALL
    SELECT {SESSION_STATE}, session_number, NULL, key, value, NULL, NULL, NULL, NULL, NULL
    FROM $schema.session_state WHERE session_number IN (SELECT session_number FROM live)"""
"""Reads the sessions in `live` with their own and shared state."""

LOAD = f"""
    WITH live AS (
        SELECT * FROM $schema.sessions WHERE {THIS_SESSION} AND {_live("$4")}
    ),
    start AS (
        SELECT session_number, greatest($5::bigint, revision - $6::bigint) AS revision FROM live
    ),
    older AS (
        SELECT last.revision FROM start, LATERAL (
            SELECT revision FROM $schema.events
            WHERE session_number = start.session_number AND revision > start.revision
            AND $7::float8 IS NOT NULL AND timestamp < $7
            ORDER BY revision DESC LIMIT 1
        ) AS last
    )
    {READ_LIVE}
    UNION ALL (
        SELECT {EVENT}, NULL, NULL, NULL, data, revision, timestamp, NULL, NULL, NULL
        FROM $schema.events WHERE session_number = (SELECT session_number FROM live)
        AND revision > coalesce((SELECT revision FROM older), (SELECT revision FROM start))
        ORDER BY revision
    )"""
"""$4 now, $5 `after_revision`, $6 `limit`, $7 `since`."""

LIST_APP = f"""
    WITH live AS (
        SELECT * FROM $schema.sessions WHERE sha256(app_name) = sha256($1) AND {_live("$2")}
    )
    {READ_LIVE}"""
"""$2 now."""

LIST_USER = f"""
    WITH live AS (
        SELECT * FROM $schema.sessions
        WHERE sha256(app_name) = sha256($1) AND sha256(user_id) = sha256($2) AND {_live("$3")}
    )
    {READ_LIVE}"""
"""$3 now."""

READ_USER_STATE = """
    SELECT key, value FROM $schema.user_state
    WHERE app_digest = sha256($1) AND user_digest = sha256($2)"""


READ_APP_STATE = "SELECT key, value FROM $schema.app_state WHERE app_digest = sha256($1)"

READ_USERS = """
    SELECT DISTINCT ON (digest) digest, user_id FROM (
        (SELECT DISTINCT ON (sha256(user_id)) sha256(user_id) AS digest, user_id FROM $schema.sessions
        WHERE sha256(app_name) = sha256($1) AND sha256(user_id) > $2
        ORDER BY sha256(user_id) LIMIT $3)
        UNION ALL
        (SELECT DISTINCT ON (user_digest) user_digest, user_id FROM $schema.user_state
        WHERE app_digest = sha256($1) AND user_digest > $2
        ORDER BY user_digest LIMIT $3)
    ) AS found ORDER BY digest LIMIT $3"""
"""$2 digest after which to begin, $3 limit."""

ERASE_USER = """
    WITH state AS (
        DELETE FROM $schema.user_state WHERE app_digest = sha256($1) AND user_digest = sha256($2)
    ),
    removed AS (
        DELETE FROM $schema.sessions
        WHERE sha256(app_name) = sha256($1) AND sha256(user_id) = sha256($2) RETURNING 1
    )
    SELECT count(*) FROM removed"""

ERASE_APP_STATE = "DELETE FROM $schema.app_state WHERE app_digest = sha256($1)"


def _write_state(first: int) -> str:
    """Write keys and values of the session, its user and its app if there is a row in `written`.

    They are six arrays, from parameter `first` on. To avoid deadlocks, keys are written in the order of their
    digests, and those of the user before those of the app. Each part refers to rows of the one before, because
    the order of independent parts is undefined.
    """
    arrays = [f"${first + index}::bytea[]" for index in range(6)]
    return f"""
    session_values AS (
        INSERT INTO $schema.session_state (session_number, key_digest, key, value)
        SELECT session_number, sha256(key), key, value
        FROM written, unnest({arrays[0]}, {arrays[1]}) AS pair (key, value)
        ON CONFLICT (session_number, key_digest) DO UPDATE SET value = excluded.value
    ),
    user_values AS (
        INSERT INTO $schema.user_state (app_digest, user_digest, key_digest, user_id, key, value)
        SELECT sha256($1), sha256($2), sha256(key), $2, key, value
        FROM written, unnest({arrays[2]}, {arrays[3]}) AS pair (key, value)
        ORDER BY sha256(key)
        ON CONFLICT (app_digest, user_digest, key_digest) DO UPDATE SET value = excluded.value
        RETURNING 1
    ),
    app_values AS (
        INSERT INTO $schema.app_state (app_digest, key_digest, key, value)
        SELECT sha256($1), sha256(key), key, value
        FROM written, unnest({arrays[4]}, {arrays[5]}) AS pair (key, value)
        WHERE (SELECT count(*) FROM user_values) >= 0
        ORDER BY sha256(key)
        ON CONFLICT (app_digest, key_digest) DO UPDATE SET value = excluded.value
    )"""


CREATE = f"""
    WITH written AS (
        INSERT INTO $schema.sessions (
            app_name, user_id, session_id, incarnation, revision, updated_at, ttl_seconds, expires_at,
            removable_at
        )
        VALUES ($1, $2, $3, $4, 0, $5, $6, $7, {_removable("$7::float8")})
        ON CONFLICT (sha256(app_name), sha256(user_id), sha256(session_id)) DO NOTHING
        RETURNING *
    ),
    {_write_state(8)},
    live AS (
        SELECT NULL::bigint AS session_number, {SESSION_COLUMNS} FROM written
        UNION ALL
        SELECT session_number, {SESSION_COLUMNS} FROM $schema.sessions
        WHERE {THIS_SESSION} AND NOT EXISTS (SELECT FROM written)
    )
    {READ_LIVE}"""
"""$4 incarnation, $5 now, $6 time to live, $7 expiry, then the state.

Returns the new session, which has no number yet, or the existing one. If a deletion is committed meanwhile, the
insertion succeeds although the snapshot still has the old row, which must not be returned as well.
"""


def _append(more: str = "") -> str:
    expires_at = "CASE WHEN ttl_seconds > 0 THEN greatest(expires_at, $8::float8 + ttl_seconds) END"
    return f"""
    WITH written AS (
        UPDATE $schema.sessions SET revision = revision + 1, updated_at = $6,
            expires_at = {expires_at}, removable_at = {_removable(expires_at)}
        WHERE {THIS_SESSION} AND incarnation = $4 AND revision = $5 AND {_live("$8")}
        RETURNING session_number, revision, ttl_seconds, expires_at
    ),
    event AS (
        INSERT INTO $schema.events (session_number, revision, timestamp, data)
        SELECT session_number, revision, $6, $7 FROM written
    ){more}
    SELECT true, ttl_seconds, expires_at FROM written
    UNION ALL
    SELECT (SELECT false FROM $schema.sessions WHERE {THIS_SESSION} AND {_live("$8")}), NULL, NULL
    WHERE NOT EXISTS (SELECT FROM written)"""


APPEND = _append()
"""$4 incarnation, $5 revision, $6 timestamp, $7 event, $8 now.

The first column is true if it was written, false if it is stale, NULL if there is no session.
"""
APPEND_WITH_STATE = _append(f",{_write_state(9)}")
"""`APPEND` with state. Most events have none, and its three parts cost time even then."""

DELETE = f"""
    DELETE FROM $schema.sessions WHERE {THIS_SESSION} AND ($4::float8 IS NULL OR expires_at <= $4)"""
"""$4 NULL, or now if the session must be expired. What belongs to a session is deleted with it."""

_NOW = "extract(epoch FROM now())::bigint"

DELETE_REMOVABLE = f"""
    DELETE FROM $schema.sessions WHERE session_number IN (
        SELECT session_number FROM $schema.sessions WHERE removable_at <= {_NOW}
        ORDER BY removable_at LIMIT $1 FOR UPDATE SKIP LOCKED
    )
    RETURNING session_number"""
"""$1 limit. The clock of the database decides, because that of a client may be fast."""

_NUMBER = f"(SELECT session_number FROM $schema.sessions WHERE {THIS_SESSION} AND incarnation = $4)"

REPLACE_EVENTS = f"""
    UPDATE $schema.events AS event SET data = changed.new_data
    FROM unnest($5::bigint[], $6::bytea[], $7::bytea[]) AS changed (revision, old_data, new_data)
    WHERE session_number = {_NUMBER} AND event.revision = changed.revision AND data = changed.old_data"""
"""$4 incarnation, then revisions, and old and new data."""


def _replace(table: str, owner: str, key: int) -> str:
    return f"""
    UPDATE $schema.{table} SET value = ${key + 2}
    WHERE {owner} AND key_digest = sha256(${key}) AND value = ${key + 1}"""


_APP, _USER = "app_digest = sha256($1)", "user_digest = sha256($2)"
REPLACE_STATE = (
    _replace("app_state", _APP, 2),
    _replace("user_state", f"{_APP} AND {_USER}", 3),
    _replace("session_state", f"session_number = {_NUMBER}", 5),
)
"""The names of the scope, and for a session its incarnation, then a key, and its old and new value.

One statement writes one key, so that it cannot be in a deadlock.
"""
