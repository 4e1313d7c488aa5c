"""What PostgreSQL executes: each statement is one atomic operation of `postgres.py`.

Those that read return rows of one shape (`_row`), whose `kind` tells what is in them.
"""

from functools import cache

HEAD, APP, USER, OWN, EVENT = range(5)
"""Kinds of rows: a session, state of its app, of its user and of its own, and an event."""

NAMED = "sha256(app_name) = sha256($1) AND sha256(user_id) = sha256($2) AND sha256(session_id) = sha256($3)"
GONE = "'-Infinity'::float8"
"""The expiry of a session that was deleted: over by every clock, and nothing brings it back."""

COLUMNS = {
    "id": "bigint",
    "owner": "bytea",
    "key": "bytea",
    "value": "bytea",
    "revision": "bigint",
    "time": "float8",
    "incarnation": "text",
    "ttl": "bigint",
    "expires_at": "float8",
}


def _row(kind: int, **expressions: str) -> str:
    """Return what is selected for a row of this kind."""
    given = [
        f"{expressions.get(name, 'NULL')}::{sql_type} AS {name}"
        for name, sql_type in COLUMNS.items()
    ]
    return f"SELECT {kind} AS kind, {', '.join(given)}"


def _head(**expressions: str) -> str:
    names = {name: name for name in ("id", "revision", "incarnation", "ttl", "expires_at")}
    return _row(HEAD, **(names | {"time": "updated_at"} | expressions))


def _live(now: str) -> str:
    return f"(expires_at IS NULL OR expires_at > {now}::float8)"


def _removable(expires_at: str) -> str:
    """Return five to ten minutes after the expiry: another process's clock may be behind."""
    return f"(floor({expires_at} / 300) + 2) * 300"


class Statements:
    """The statements for one schema, whose name is given as it is written in SQL."""

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self.load = self._load()
        self.list_app = self._list("sha256(app_name) = sha256($1)")
        self.list_user = self._list(
            "sha256(app_name) = sha256($1) AND sha256(user_id) = sha256($3)"
        )
        self.user_state = (
            f"SELECT key, value FROM {schema}.user_state"
            " WHERE app = sha256($1) AND usr = sha256($2)"
        )
        self.create = cache(self._create)
        self.append = cache(self._append)
        bury = f"UPDATE {schema}.sessions SET expires_at = {GONE}, removable_at = 0 WHERE {NAMED}"
        self.bury = f"{bury} RETURNING id"
        self.bury_expired = f"{bury} AND expires_at <= $4 RETURNING id"
        self.bury_some = f"""
            UPDATE {schema}.sessions SET expires_at = {GONE}, removable_at = $1::bigint + 60
            WHERE id IN (
                SELECT id FROM {schema}.sessions WHERE removable_at <= $1
                ORDER BY removable_at LIMIT $2 FOR UPDATE SKIP LOCKED
            )
            RETURNING id"""
        """Other processes then leave these to us for a minute."""
        self.clear = f"""
            WITH event AS (DELETE FROM {schema}.events WHERE session = ANY($1::bigint[])),
            own AS (DELETE FROM {schema}.session_state WHERE session = ANY($1))
            DELETE FROM {schema}.sessions WHERE id = ANY($1) AND expires_at = {GONE}"""

    def _load(self) -> str:
        """$4 now, $5 after this revision, $6 at most so many, $7 behind the last that is older."""
        schema = self._schema
        return f"""
            WITH head AS (SELECT * FROM {schema}.sessions WHERE {NAMED} AND {_live("$4")}),
            start AS (SELECT id, greatest($5::bigint, revision - $6::bigint) AS revision FROM head),
            older AS (
                SELECT max(last.revision) AS revision FROM start, LATERAL (
                    SELECT events.revision FROM {schema}.events
                    WHERE session = start.id AND events.revision > start.revision
                    AND $7::float8 IS NOT NULL AND timestamp < $7
                    ORDER BY events.revision DESC LIMIT 1
                ) AS last
            )
            {_head()} FROM head
            UNION ALL {_row(APP, key="key", value="value")} FROM {schema}.app_state
            WHERE app = sha256($1) AND EXISTS (SELECT FROM head)
            UNION ALL {_row(USER, key="key", value="value")} FROM {schema}.user_state
            WHERE app = sha256($1) AND usr = sha256($2) AND EXISTS (SELECT FROM head)
            UNION ALL {_row(OWN, key="key", value="value")} FROM {schema}.session_state
            WHERE session = (SELECT id FROM head)
            UNION ALL (
                {_row(EVENT, revision="revision", time="timestamp", value="data")}
                FROM {schema}.events WHERE session = (SELECT id FROM head)
                AND events.revision > coalesce((SELECT revision FROM older), (SELECT revision FROM start))
                ORDER BY events.revision
            )"""

    def _list(self, where: str) -> str:
        """$1 app, $2 now, $3 user."""
        schema = self._schema
        return f"""
            WITH live AS MATERIALIZED (
                SELECT * FROM {schema}.sessions WHERE {where} AND {_live("$2")}
            )
            {_head(owner="user_id", key="session_id")} FROM live
            UNION ALL {_row(APP, key="key", value="value")} FROM {schema}.app_state
            WHERE app = sha256($1) AND EXISTS (SELECT FROM live)
            UNION ALL {_row(USER, owner="usr", key="key", value="value")} FROM {schema}.user_state
            WHERE app = sha256($1) AND usr IN (SELECT DISTINCT sha256(user_id) FROM live)
            UNION ALL {_row(OWN, id="session", key="key", value="value")} FROM {schema}.session_state
            WHERE session IN (SELECT id FROM live)"""

    def _create(self, scopes: str) -> str:
        """$4 incarnation, $5 now, $6 ttl, $7 expiry, then keys and values. A new session has no id yet."""
        schema = self._schema
        return f"""
            WITH head AS (
                INSERT INTO {schema}.sessions (
                    app_name, user_id, session_id, incarnation, revision, updated_at, ttl, expires_at, removable_at
                )
                VALUES ($1, $2, $3, $4, 0, $5, $6, $7, {_removable("$7::float8")})
                ON CONFLICT (sha256(app_name), sha256(user_id), sha256(session_id)) DO NOTHING
                RETURNING *
            )
            {self._write_state(scopes, 8)}
            {_head(id="NULL")} FROM head
            UNION ALL {_head()} FROM {schema}.sessions WHERE {NAMED}
            UNION ALL {_row(APP, key="key", value="value")} FROM {schema}.app_state
            WHERE app = sha256($1)
            UNION ALL {_row(USER, key="key", value="value")} FROM {schema}.user_state
            WHERE app = sha256($1) AND usr = sha256($2)"""

    def _append(self, scopes: str) -> str:
        """$4 incarnation, $5 revision, $6 now, $7 timestamp, $8 event, then keys and values.

        The first column is true when it was written, false when stale, NULL when there is no session.
        """
        schema = self._schema
        expires_at = "CASE WHEN ttl > 0 THEN greatest(expires_at, $6::float8 + ttl) END"
        return f"""
            WITH head AS (
                UPDATE {schema}.sessions SET revision = revision + 1, updated_at = $7,
                    expires_at = {expires_at}, removable_at = {_removable(expires_at)}
                WHERE {NAMED} AND incarnation = $4 AND revision = $5 AND {_live("$6")}
                RETURNING id, revision, ttl, expires_at
            ),
            event AS (
                INSERT INTO {schema}.events (session, revision, timestamp, data)
                SELECT id, revision, $7, $8 FROM head
            )
            {self._write_state(scopes, 9)}
            SELECT true, ttl, expires_at FROM head
            UNION ALL SELECT (SELECT false FROM {schema}.sessions WHERE {NAMED} AND {_live("$6")}), NULL, NULL
            WHERE NOT EXISTS (SELECT FROM head)"""

    def _write_state(self, scopes: str, first: int) -> str:
        """Return what writes the scopes that have values, of session, user and app, in this order.

        Keys are written in the order of their digests: two statements that write the same keys never
        wait for each other in a circle.
        """
        schema, parts = self._schema, ""
        for scope in scopes:
            table, names, owner = {
                "s": ("session_state", "session", "head.id"),
                "u": ("user_state", "app, usr", "sha256($1), sha256($2)"),
                "a": ("app_state", "app", "sha256($1)"),
            }[scope]
            # Parts of a statement that do not use each other are run in no particular order.
            user_first = "WHERE (SELECT count(*) FROM written_u) >= 0" if "ua" in scopes else ""
            after = user_first if scope == "a" else ""
            parts += f""",
            written_{scope} AS (
                INSERT INTO {schema}.{table} ({names}, digest, key, value)
                SELECT {owner}, sha256(key) AS digest, key, value
                FROM head, unnest(${first}::bytea[], ${first + 1}::bytea[]) AS pair (key, value) {after}
                ORDER BY digest
                ON CONFLICT ({names}, digest) DO UPDATE SET value = excluded.value
                RETURNING 1
            )"""
            first += 2
        return parts
