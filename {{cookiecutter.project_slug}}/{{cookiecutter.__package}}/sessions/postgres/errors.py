"""Errors of PostgreSQL as sentences that name the cause and the remedy."""

import ssl
from pathlib import Path

import asyncpg

from ..errors import StoreUnavailable

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Errors of asyncpg. Their texts have no password."""

STATEMENT_UNKNOWN = (
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
"""A proxy has changed the server connection since the statement was prepared."""

TABLES_MISSING = (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError)

HINTS = {
    "28P01": "it refuses the credentials; check user and password in the session URI",
    "28000": "it does not let this user in ({}); check the user, its pg_hba.conf and sslmode",
    "3D000": "it has no such database; create it, or check the end of the session URI",
    "42501": "the user lacks a permission ({}); the README says which ones it needs",
    "53100": "its disk is full; make room",
    "53200": "it is out of memory",
    "53300": "it has no connection left; raise its max_connections, or lower ours, or use PgBouncer",
    "25006": "it takes no writes, as a standby does; name the primary, or all hosts",
    "57P03": "it is starting up or shutting down; try again in a moment",
    "57014": "it cancelled the statement; check its statement_timeout, or ask its administrator",
    "3F000": "the tables of sessions are gone; the next call creates them again",
    "42P01": "the tables of sessions are gone; the next call creates them again",
    "42703": "the tables of sessions are not those of this version; start the program again",
}
"""Hints by SQLSTATE. {} is the server's own text."""


def lost(error: BaseException) -> bool:
    """Return whether the connection is lost, and other open ones probably as well."""
    if isinstance(error, TimeoutError | asyncpg.QueryCanceledError):
        return False
    return isinstance(
        error,
        asyncpg.PostgresConnectionError
        | asyncpg.InterfaceError
        | asyncpg.InternalClientError  # the server closed while the statement was sent
        | asyncpg.OperatorInterventionError  # shutting down, starting up, idle for too long
        | asyncpg.ReadOnlySQLTransactionError  # it was the primary before a failover
        | OSError,
    )


def worth_another_try(error: BaseException) -> bool:
    """Return whether a repetition of the statement may succeed."""
    return lost(error) or isinstance(
        error,
        asyncpg.TransactionRollbackError  # a deadlock, or an isolation level above the default
        | asyncpg.InvalidCachedStatementError,  # a table was altered
    )


def translated(error: Exception, location: str) -> Exception:
    """Return `StoreUnavailable`, or `ValueError` for bad data, in place of one of `FAILURES`."""
    if isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
        return ValueError(f"PostgreSQL cannot store a value: {first_line(error)}.")
    return StoreUnavailable(f"PostgreSQL at {location}: {_explain(error)}.")


def first_line(error: Exception) -> str:
    """Return the first line of a message without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _explain(error: Exception) -> str:
    text = first_line(error)
    if hint := HINTS.get(getattr(error, "sqlstate", None) or ""):
        return hint.format(text)
    if isinstance(error, TimeoutError):
        return "it did not answer in time; check that it runs and is not overloaded"
    if "rejected SSL upgrade" in text:
        return "it does not speak TLS; use another sslmode, or turn on ssl on the server"
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        return f"its certificate is not accepted ({reason}); check the host, and sslrootcert"
    if isinstance(error, FileNotFoundError):
        return "a file or a socket that the session URI names is not there"
    if isinstance(error, PermissionError) and "Connect call failed" not in text:
        what = error.filename or f"{Path.home() / '.postgresql'}, or a file or socket of the URI"
        return f"this process must not read {what}; check HOME and the permissions"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "none of the hosts takes writes; check that there is a primary among them"
    if lost(error):
        return f"it cannot be reached ({text}); check that it runs, and host and port in the session URI"
    return text
