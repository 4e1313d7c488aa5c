"""The session URI of MongoDB, its own connection string with our scheme."""

from typing import Any
from urllib.parse import quote

from pymongo import MongoClient, ReadPreference
from pymongo import errors as driver

from ..errors import ConfigurationError
from ..uri import SessionURI
from .errors import one_line

# fmt: off
DRIVER_OPTIONS = (
    "appName", "authMechanism", "authMechanismProperties", "authSource", "compressors",
    "connectTimeoutMS", "directConnection", "heartbeatFrequencyMS", "journal", "loadBalanced",
    "localThresholdMS", "maxConnecting", "maxIdleTimeMS", "maxPoolSize", "minPoolSize",
    "readConcernLevel", "readPreference", "replicaSet", "retryReads", "retryWrites",
    "serverMonitoringMode", "serverSelectionTimeoutMS", "socketTimeoutMS", "srvMaxHosts",
    "srvServiceName", "ssl", "timeoutMS", "tls", "tlsAllowInvalidCertificates",
    "tlsAllowInvalidHostnames", "tlsCAFile", "tlsCRLFile", "tlsCertificateKeyFile",
    "tlsCertificateKeyFilePassword", "tlsDisableOCSPEndpointCheck", "tlsInsecure", "w",
    "waitQueueTimeoutMS", "wTimeoutMS", "zlibCompressionLevel",
)
# fmt: on
"""The options of the driver."""

DEFAULTS = {
    "appName": "adk-sessions",
    "timeoutMS": 5_000,
    "w": "majority",
    "journal": True,
    "readConcernLevel": "majority",
}
"""An event is acknowledged when the journals of a majority have it."""


def parse(uri: SessionURI) -> tuple[str, dict[str, Any], str, str]:
    """Return the connection string without credentials, the driver's options, database and collection.

    Raises:
        ConfigurationError: the URI cannot work.
    """
    collection = uri.options.take("collection", str, "adk_sessions")
    settings: dict[str, Any] = {"username": uri.username, "password": uri.password}
    given = {name: uri.options.take(name, str, "") for name in DRIVER_OPTIONS}
    settings |= DEFAULTS | {name: text for name, text in given.items() if text}
    # Without authSource, the driver authenticates in the database of the path.
    host = f"mongodb{uri.variant}://{uri.hosts or 'localhost'}{quote(uri.path)}"
    database = uri.path.strip("/") or "adk"
    try:
        client = MongoClient[Any](host, connect=False, **settings)
        client[database].get_collection(collection)
    except (driver.PyMongoError, ValueError, TypeError, OSError) as error:
        raise ConfigurationError(
            f"The session URI is not valid for MongoDB: {one_line(error)}."
        ) from None
    if client.read_preference != ReadPreference.PRIMARY or not client.write_concern.acknowledged:
        raise ConfigurationError(
            "The session URI is not valid for MongoDB: readPreference has to be primary, and w not 0,"
            " because an event counts when it is stored, and is read by the next call."
        )
    return host, settings, database, collection
