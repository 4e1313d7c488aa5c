"""Errors of Redis as sentences that name the cause and the remedy."""

from redis import exceptions

FAILURES = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
"""Errors of redis-py. Their texts have no password."""

CREDENTIALS = "it refuses the credentials; check user and password in the session URI"
PERMISSION = "the user lacks a permission; the README says which ones it needs"
CLOSED = (
    "it closed the connection; check that it runs, and speaks TLS if and only if the scheme of the"
    " session URI ends with s"
)
NO_REPLY = (
    "it did not answer in time; check that it runs, is not overloaded, and speaks TLS if and only if"
    " the scheme of the session URI ends with s"
)
TLS_FILE = "a file of ssl_ca_certs, ssl_certfile or ssl_keyfile does not hold what its name says"

HINTS = {
    "AuthenticationError": CREDENTIALS,
    "NOAUTH": CREDENTIALS,
    "no permissions": PERMISSION,
    "user executing the script can't": PERMISSION,  # Redis 6.2
    "maxmemory": "its memory is full; raise maxmemory, or shorten the ttl of sessions",
    "read only replica": "it is a replica; name the master, or use sentinel=<service>",
    "MISCONF": "it refuses writes because it cannot save to disk; see its log",
    "loading the dataset": "it is still loading its data; try again in a moment",
    "DB index is out of range": "it has no database of that number; see the end of the session URI",
    "CLUSTERDOWN": "the cluster is down; see CLUSTER INFO",
    "MovedError": "it is part of a cluster; add cluster=true to the session URI",
    "Cluster mode is not enabled": "it is no cluster; take cluster=true out of the session URI",
    "No master found": "no sentinel knows a master of the name in the option sentinel",
    "certificate is not valid for": (
        "its certificate is for another host name; use a name from the certificate in the session URI"
    ),
    "certificate has expired": "its certificate has expired; renew it",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted; name its authority with ssl_ca_certs",
    "NO_CERTIFICATE_OR_CRL_FOUND": TLS_FILE,
    "PEM lib": TLS_FILE,
    "WRONG_VERSION_NUMBER": "it does not speak TLS; use the scheme without s, or the port for TLS",
    "record layer failure": "it does not speak TLS; use the scheme without s, or the port for TLS",
    "Connection closed by server": CLOSED,
    "Connection lost": CLOSED,
    "Connection reset": CLOSED,
}
"""Fragments of an error's name or text, and the hint. The first match counts."""


def explain(error: Exception) -> str:
    """Return the cause and the remedy."""
    text = str(error).strip().rstrip(".")
    for fragment, hint in HINTS.items():
        if fragment.lower() in f"{type(error).__name__} {text}".lower():
            return hint
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return NO_REPLY
    if isinstance(error, exceptions.ConnectionError | OSError):
        return f"it cannot be reached ({text}); check that it runs, and host and port in the session URI"
    return text.removeprefix("NEWER ") or type(error).__name__
