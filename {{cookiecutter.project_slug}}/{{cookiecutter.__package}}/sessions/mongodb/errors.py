"""What a MongoDB server or its driver says when something fails, and what to do about it."""

from pymongo import errors as driver

from .documents import DUPLICATE, GUARDED

CODES = {
    13: "the user lacks permission for the collection of sessions; see the README",
    18: "it refuses the credentials; check user, password and authSource in the session URI",
    50: "it did not answer in time; check hosts, ports and tls in the session URI, and its load",
    64: "too few of its members took the write in time; see rs.status()",
    100: "it has fewer members than the option w asks for; see rs.status()",
    8000: "it refuses the credentials; check user, password and authSource in the session URI",
    10107: "it is not the primary; name the replica set in the session URI with replicaSet",
    13435: "it is not the primary; name the replica set in the session URI with replicaSet",
    14031: "its disk is full; make room, or shorten the ttl of sessions",
}
"""What the server answers, by its code, and what to do."""

WORDS = {
    "requires authentication": "it wants a user and a password; write them into the session URI",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted; name its authority with tlsCAFile",
    "certificate verify failed": "its certificate is not trusted; name its authority with tlsCAFile",
    "SSL handshake failed": "it does not speak TLS as asked; check tls and its files in the session URI",
    "belongs to a set": "it belongs to another replica set; check replicaSet in the session URI",
    "No replica set members": "none of them is in that replica set; check replicaSet in the session URI",
    "No primary": "it has no primary at the moment; see rs.status()",
    "No replica set members match": "it has no primary at the moment; see rs.status()",
    "NotWritablePrimary": CODES[10107],
    "not authorized": CODES[13],
    "No servers found yet": CODES[50],
    "timed out": CODES[50],
    "connection closed": "it closed the connection; if it wants TLS, add tls=true to the session URI",
}
"""Likewise, by what the driver says."""


def one_line(error: Exception) -> str:
    """Return what an error says, fit to stand in a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def refusal(error: driver.OperationFailure) -> int | None:
    """Return the code of an error that we have asked for, and None if it is another one."""
    codes = {error.code}
    if isinstance(error, driver.BulkWriteError):
        if (error.details or {}).get("writeConcernErrors"):
            return None
        codes = {problem["code"] for problem in (error.details or {}).get("writeErrors", [])}
    return next(iter(codes & {DUPLICATE, GUARDED}), None)


def explain(error: driver.PyMongoError) -> str:
    """Return what has failed and what to do, without the name of the server."""
    text, details = one_line(error), getattr(error, "details", None) or {}
    for name in ("writeErrors", "writeConcernErrors"):
        for problem in details.get(name, []):
            text, details = problem.get("errmsg", text), problem
    code = details.get("code")
    for words, mend in WORDS.items():
        if words in text:
            return mend
    if code in CODES:
        return CODES[code]
    if isinstance(error, driver.NetworkTimeout | driver.ExecutionTimeout | driver.WTimeoutError):
        return CODES[50]
    text = text.partition(" (configured timeouts")[0].partition(", Timeout:")[0]
    if isinstance(error, driver.ConnectionFailure):
        return (
            f"it cannot be reached ({text}); check that it runs, and the hosts in the session URI"
        )
    return text
