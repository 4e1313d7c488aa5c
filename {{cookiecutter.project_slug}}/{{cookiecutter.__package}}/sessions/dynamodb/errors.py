"""What goes wrong with DynamoDB, as sentences."""

import re
from typing import Any

from botocore import exceptions
from botocore.exceptions import ClientError

from ..errors import ConfigurationError, SessionStoreError, StoreUnavailable
from .items import Item

NO_TABLE = "ResourceNotFoundException"

KEYS = "it refuses the credentials; check the keys that the SDK finds"
THROTTLED = "it is throttled; try again, or raise its capacity"
MENDS = {
    NO_TABLE: "there is no such table; create it with the command `sessions init`, or name another"
    " table or region in the session URI",
    "UnrecognizedClientException": KEYS,
    "InvalidClientTokenId": KEYS,
    "IncompleteSignatureException": KEYS,
    "MissingAuthenticationTokenException": KEYS,
    "InvalidSignatureException": "it refuses the signature; check the secret key, and the clock here",
    "ExpiredTokenException": "the credentials have expired; renew them",
    "ProvisionedThroughputExceededException": THROTTLED,
    "ThrottlingException": THROTTLED,
    "RequestLimitExceeded": "the account is throttled; try again, or raise its quota",
    "LimitExceededException": "the account is at a limit; try again, or raise its quota",
    "TransactionCanceledException": "others kept changing the same items, or it is throttled; try again",
    "TransactionInProgressException": "others kept changing the same items; try again",
    "InternalServerError": "it failed; try again",
    "ServiceUnavailable": "it is not available; try again",
}
"""What DynamoDB answers, by its code, and what to do."""


class Answered(StoreUnavailable):
    """DynamoDB has answered with an error."""

    def __init__(self, sentence: str, response: Any) -> None:
        super().__init__(sentence)
        self.code: str = response["Error"]["Code"]
        reasons = response.get("CancellationReasons") or []
        self.reasons: set[str] = {reason.get("Code") or "" for reason in reasons}
        """Why the actions of a transaction were refused."""
        said = [reason.get("Message") or "" for reason in reasons]
        self.too_large = any("size" in text for text in said or [_said(response)])
        self.found: Item | None = (reasons[0].get("Item") if reasons else None) or None
        """What stands where the first condition of a transaction does not hold."""


def explained(error: Exception, location: str) -> SessionStoreError:
    """Return the error of the SDK or of the network as one of ours."""
    sentence = f"DynamoDB table {location}: {_explain(error)}."
    if isinstance(error, ClientError):
        return Answered(sentence, error.response)
    return (ConfigurationError if _is_ours(error) else StoreUnavailable)(sentence)


def _is_ours(error: Exception) -> bool:
    """Whether the SDK has not even tried."""
    return isinstance(
        error,
        exceptions.ConfigNotFound
        | exceptions.ConfigParseError
        | exceptions.InvalidConfigError
        | exceptions.NoCredentialsError
        | exceptions.NoRegionError
        | exceptions.PartialCredentialsError
        | exceptions.ProfileNotFound,
    )


def _explain(error: Exception) -> str:
    """Say in half a sentence what went wrong. DynamoDB's own texts can name accounts and users."""
    match error:
        case ClientError():
            return _explain_answer(error.response)
        case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
            return (
                "the SDK finds no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name"
                " a profile, or give this machine a role"
            )
        case exceptions.NoRegionError():
            return "no region is named; add region=… to the session URI, or set AWS_DEFAULT_REGION"
        case exceptions.ProfileNotFound():
            return (
                "the SDK knows no such profile; check profile=… in the session URI, or AWS_PROFILE"
            )
        case exceptions.SSLError():
            return (
                "no TLS connection comes about; check http or https in endpoint_url, and name the"
                " authority of a certificate of your own in AWS_CA_BUNDLE"
            )
        case exceptions.ReadTimeoutError() | exceptions.ConnectTimeoutError():
            return "it did not answer in time; check endpoint_url, region and network"
        case TimeoutError():
            return (
                "it cannot be reached or did not answer in time, however often the SDK tried; check"
                " endpoint_url, region and network, and whether it is throttled"
            )
        case OSError() | exceptions.HTTPClientError():
            return "it cannot be reached; check endpoint_url, region and network"
    return _line(str(error)) or type(error).__name__


def _explain_answer(response: Any) -> str:
    code, said = response["Error"]["Code"], _said(response)
    if code == "AccessDeniedException":
        action = re.search(r"not authorized to perform: ([\w:]+)", said)
        what = f"{action[1]} is not allowed" if action else "access is denied"
        return f"{what}; grant what the README lists under permissions"
    if code in ("ValidationException", "TransactionCanceledException") and re.search(
        r"\bkey\b", said
    ):
        return "it has other keys than pk and sk, both of them texts; name another table"
    return MENDS.get(code) or _line(f"{code}: {said}")


def _said(response: Any) -> str:
    return response["Error"].get("Message") or ""


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
