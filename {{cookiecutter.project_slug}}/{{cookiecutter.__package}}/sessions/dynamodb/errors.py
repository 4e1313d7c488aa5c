"""Errors of DynamoDB, of the SDK and of the network as sentences that name the cause and the remedy."""

import re
from typing import Any

from botocore import exceptions

from ..errors import ConfigurationError, SessionStoreError, StoreUnavailable

NO_TABLE = "ResourceNotFoundException"
CONDITION_FAILED = "ConditionalCheckFailed"
CONFLICTS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
"""Reasons of refused transactions that would succeed later."""

THROTTLED = "it is throttled; try again, or raise its capacity"
HINTS = {
    NO_TABLE: "there is no such table; create it with `sessions init`, or name another table or"
    " region in the session URI",
    "UnrecognizedClientException": "it refuses the credentials; check the access key",
    "InvalidSignatureException": "it refuses the signature; check the secret key and this machine's"
    " clock",
    "ExpiredTokenException": "the credentials have expired; renew them",
    "ProvisionedThroughputExceededException": THROTTLED,
    "ThrottlingException": THROTTLED,
    "TransactionCanceledException": "other writers kept changing the same items, or it is throttled;"
    " try again",
}
"""Hints by DynamoDB's error code."""

SETTINGS_HINTS: dict[type[Exception], str] = {
    exceptions.NoCredentialsError: "the SDK finds no credentials; set AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY, name a profile, or give this machine a role",
    exceptions.NoRegionError: "no region is set; add region=… to the session URI, or set"
    " AWS_DEFAULT_REGION",
    exceptions.ProfileNotFound: "unknown profile; check profile=… in the session URI, or AWS_PROFILE",
}
"""Hints for settings that the SDK lacks."""

TIMED_OUT = (
    "it did not answer in time; check endpoint_url, region and network, and whether it is throttled"
)
UNREACHABLE = "it cannot be reached; check endpoint_url, region and network"
NETWORK_HINTS: dict[type[Exception], str] = {
    exceptions.SSLError: "TLS failed; check http or https in endpoint_url, and name the authority of"
    " a private certificate in AWS_CA_BUNDLE",
    exceptions.ReadTimeoutError: TIMED_OUT,
    exceptions.ConnectTimeoutError: TIMED_OUT,
    TimeoutError: TIMED_OUT,
    OSError: UNREACHABLE,
    exceptions.ConnectionError: UNREACHABLE,
    exceptions.HTTPClientError: UNREACHABLE,
}
"""Hints for failures of the network. The first match counts."""


class DynamoDBError(StoreUnavailable):
    """DynamoDB answered with an error."""

    def __init__(self, sentence: str, response: Any) -> None:
        super().__init__(sentence)
        self.code: str = response["Error"]["Code"]
        reasons = response.get("CancellationReasons") or []
        codes = {reason.get("Code") for reason in reasons}
        self.condition_failed = CONDITION_FAILED in codes or self.code.startswith(CONDITION_FAILED)
        self.conflict = not self.condition_failed and (
            bool(codes & CONFLICTS) or self.code == "TransactionConflictException"
        )
        """Whether a retry of the call may succeed."""
        messages = [reason.get("Message") or "" for reason in reasons] or [_message(response)]
        self.too_large = any("size" in message for message in messages)
        self.item: dict[str, Any] | None = (reasons[0].get("Item") if reasons else None) or None
        """The item on which the first condition of a transaction failed, if there is one."""


def explain(error: Exception, location: str) -> SessionStoreError:
    """Convert an error of the SDK or of the network to one of this package."""
    where = f"DynamoDB table {location}"
    if isinstance(error, exceptions.ClientError):
        return DynamoDBError(f"{where}: {_explain_reply(error.response)}.", error.response)
    for kind, hint in SETTINGS_HINTS.items():
        if isinstance(error, kind):
            return ConfigurationError(f"{where}: {hint}.")
    for kind, hint in NETWORK_HINTS.items():
        if isinstance(error, kind):
            return StoreUnavailable(f"{where}: {hint}.")
    return StoreUnavailable(f"{where}: {_one_line(str(error))}.")


def _explain_reply(response: Any) -> str:
    """Return a hint for an error reply. DynamoDB's own texts may name accounts and users."""
    code, message = response["Error"]["Code"], _message(response)
    if code == "AccessDeniedException":
        action = re.search(r"not authorized to perform: ([\w:]+)", message)
        denied = f"{action[1]} is not allowed" if action else "access is denied"
        return f"{denied}; grant what the README lists under permissions"
    if code == "ValidationException" and re.search(r"\bkeys?\b", message):
        return "its keys are not pk and sk, both strings; name another table"
    return HINTS.get(code) or _one_line(f"{code}: {message}")


def _message(response: Any) -> str:
    return response["Error"].get("Message") or ""


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
