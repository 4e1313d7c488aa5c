"""Errors of Google Cloud Storage, its library and the network as sentences with the cause and the remedy."""

import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage import exceptions as storage  # type: ignore[import-untyped]

from ..errors import SessionStoreError, StoreUnavailable

ROLE = "roles/storage.objectUser"
REQUEST = re.compile(r"[A-Z]+ https?://\S+: ")
"""The library's prefix of the service's messages."""
MALFORMED = (ValueError, TypeError, AttributeError, LookupError, zlib.error)
"""Exceptions of decoding malformed content."""
FAILURES = (
    *(api.GoogleAPICallError, api.RetryError, auth.GoogleAuthError),
    *(storage.DataCorruption, storage.InvalidResponse, requests.RequestException, OSError),
    *MALFORMED,  # the library raises these if the reply is not from the service
)


class Gone(Exception):
    """This generation of an object has been deleted or replaced."""


@contextmanager
def explained(location: str, timeout: float) -> Iterator[None]:
    """Convert failures of a request.

    Raises:
        StoreUnavailable: the request failed.
    """
    try:
        yield
    except SessionStoreError:
        raise
    except FAILURES as error:
        raise StoreUnavailable(
            f"Google Cloud Storage at {location}: {_explain(error, timeout)}."
        ) from error


def first_line(text: object) -> str:
    """Return the beginning of a message for use within a sentence."""
    return str(text).strip().partition("\n")[0].rstrip(".")[:200]


def _explain(error: Exception, timeout: float) -> str:
    cause = error.cause if isinstance(error, api.RetryError) and error.cause else error
    if isinstance(cause, auth.TransportError) and isinstance(cause.args[0], Exception):
        cause = cause.args[0]
    if isinstance(cause, storage.InvalidResponse):
        cause = api.from_http_response(cause.response)  # type: ignore[no-untyped-call]
    match cause:
        case auth.InvalidOperation() | api.Unauthorized() | auth.RefreshError():
            return "it refuses the credentials; check that they are valid and not expired"
        case auth.GoogleAuthError():
            return (
                f"it needs credentials ({first_line(cause)}); set GOOGLE_APPLICATION_CREDENTIALS,"
                " or run gcloud auth application-default login"
            )
        case api.Forbidden():
            return (
                f"the account lacks a permission ({_reason(cause)}); grant it {ROLE} on the bucket"
            )
        case api.NotFound():
            return "there is no such bucket; create it, or check its name in the session URI"
        case api.TooManyRequests():
            return (
                "it accepts no more requests at the moment; an object can be written about once a"
                " second, so check whether many sessions write the same state key"
            )
        case api.GoogleAPICallError():
            return f"it answers {cause.code} ({_reason(cause)})"
        case requests.exceptions.SSLError() if "WRONG_VERSION_NUMBER" in str(cause):
            return "it does not speak TLS; use the scheme with +http"
        case requests.exceptions.SSLError():
            return "its certificate is not trusted; name its authority in REQUESTS_CA_BUNDLE"
        case requests.Timeout():
            return f"it did not answer within {timeout:g} seconds; check the network"
        case requests.ConnectionError():
            return "it cannot be reached; check the network, and the host in the session URI"
        case ValueError():
            pass
        case OSError() | api.RetryError() | storage.DataCorruption():
            return first_line(cause) or type(cause).__name__
    return "its answer is not one of Google Cloud Storage; check the host in the session URI"


def _reason(error: api.GoogleAPICallError) -> str:
    """Return the message of the service without the request."""
    text = REQUEST.sub("", error.message)
    with suppress(ValueError, LookupError, TypeError):
        text = json.JSONDecoder().raw_decode(text)[0]["error"]["message"]
    return first_line(text)
