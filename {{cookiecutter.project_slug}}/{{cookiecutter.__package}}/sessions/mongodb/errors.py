"""Errors of MongoDB and its driver as sentences that name the cause and the remedy."""

from pymongo import errors as driver

CREDENTIALS = "it refuses the credentials; check user, password and authSource in the session URI"
PERMISSION = "the user lacks permission for the collection of sessions; see the README"
NOT_PRIMARY = "it is not the primary; name the replica set in the session URI with replicaSet"
NO_PRIMARY = "it has no primary at the moment; see rs.status()"
OTHER_SET = "it belongs to another replica set; check replicaSet in the session URI"
TLS = "it does not speak TLS as asked; check tls and its files in the session URI"
CERTIFICATE = "its certificate is not trusted; name its authority with tlsCAFile"
TOO_LATE = "it did not answer in time; check hosts, ports and tls in the session URI, and its load"

HINTS_BY_CODE = {
    13: PERMISSION,
    18: CREDENTIALS,
    50: TOO_LATE,
    64: "too few of its members took the write in time; see rs.status()",
    100: "it has fewer members than the option w asks for; see rs.status()",
    8000: CREDENTIALS,
    10107: NOT_PRIMARY,
    13435: NOT_PRIMARY,
    14031: "its disk is full; make room, or shorten the ttl of sessions",
}
"""Hints by the code of the server's reply."""

HINTS = {
    "requires authentication": "it wants a user and a password; write them into the session URI",
    "CERTIFICATE_VERIFY_FAILED": CERTIFICATE,
    "certificate verify failed": CERTIFICATE,
    "SSL handshake failed": TLS,
    "belongs to a set": OTHER_SET,
    "available for replica set name": OTHER_SET,
    "No primary": NO_PRIMARY,
    "members match": NO_PRIMARY,
    "NotWritablePrimary": NOT_PRIMARY,
    "not authorized": PERMISSION,
    "found yet": TOO_LATE,
    "timed out": TOO_LATE,
    "connection closed": "it closed the connection; if it wants TLS, add tls=true to the session URI",
}
"""Hints by fragments of the message, if there is no code or an ambiguous one."""


def one_line(error: Exception) -> str:
    """Return the message of an error for use within a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def hint(error: driver.PyMongoError) -> str:
    """Return the cause and the remedy, without the name of the server."""
    text, details = one_line(error), getattr(error, "details", None) or {}
    for name in ("writeErrors", "writeConcernErrors"):
        for problem in details.get(name, []):
            text, details = problem.get("errmsg", text), problem
    for words, advice in HINTS.items():
        if words in text:
            return advice
    if details.get("code") in HINTS_BY_CODE:
        return HINTS_BY_CODE[details["code"]]
    if isinstance(error, driver.NetworkTimeout | driver.ExecutionTimeout | driver.WTimeoutError):
        return TOO_LATE
    text = text.partition(" (configured timeouts")[0].partition(", Timeout:")[0]
    if isinstance(error, driver.ConnectionFailure):
        return (
            f"it cannot be reached ({text}); check that it runs, and the hosts in the session URI"
        )
    return text
