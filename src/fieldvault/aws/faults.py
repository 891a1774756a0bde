"""What went wrong, told by the SDK's exceptions and by the codes that every AWS service may answer with."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from ssl import CertificateError
from types import MappingProxyType
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError, SSLError

__all__ = [
    "COMMON_CODES",
    "SDK_FAULTS",
    "STILL_EXPIRED",
    "Fault",
    "code_of",
    "fault_of_code",
    "fault_of_sdk",
    "words_of",
]


class Fault(Enum):
    """What an operator would do about it."""

    OUTAGE = auto()
    """Nothing, for a moment: unreachable, timed out, throttled, or failing inside."""
    DENIAL = auto()
    """Mend credentials or permissions."""
    MISTAKE = auto()
    """Mend the configuration of the SDK."""
    OTHER = auto()
    """Look closer: nothing of these."""


_OUTAGES = """
    CapacityNotAvailableError ChecksumError ConnectionClosedError ConnectionError ConnectTimeoutError
    CredentialRetrievalError EndpointConnectionError EventStreamError FlexibleChecksumError HTTPClientError
    IncompleteReadError MetadataRetrievalError ProxyConnectionError ReadTimeoutError ResponseStreamingError
    SSLError TokenRetrievalError
"""
_DENIALS = """
    LoginAuthorizationCodeError LoginError LoginInsufficientPermissions LoginRefreshRequired
    LoginTokenLoadError NoAuthTokenError NoCredentialsError PartialCredentialsError
    RefreshWithMFAUnsupportedError SSOError SSOTokenLoadError UnauthorizedSSOTokenError UnknownCredentialError
"""
_MISTAKES = """
    BaseEndpointResolverError ConfigNotFound ConfigParseError EndpointProviderError EndpointResolutionError
    EndpointVariantError InfiniteLoopConfigError InvalidChecksumConfigError InvalidConfigError
    InvalidDefaultsMode InvalidEndpointConfigurationError InvalidEndpointDiscoveryConfigurationError
    InvalidHostLabelError InvalidIMDSEndpointError InvalidIMDSEndpointModeError InvalidMaxRetryAttemptsError
    InvalidProxiesConfigError InvalidRegionError InvalidRetryConfigurationError InvalidRetryModeError
    InvalidSTSRegionalEndpointsConfigError MD5UnavailableError MissingDependencyException NoRegionError
    ProfileNotFound ServiceNotInRegionError UnknownEndpointError UnknownFIPSEndpointError
    UnknownRegionError UnknownSignatureVersionError UnknownTokenProviderError UnsupportedServiceProtocolsError
    UnsupportedSignatureVersionError
"""
_OTHERS = """
    AliasConflictParameterError ApiVersionNotFoundError AwsChunkedWrapperError BotoCoreError ClientError
    DataNotFoundError InvalidDNSNameError InvalidExpressionError InvalidS3AddressingStyleError
    InvalidS3UsEast1RegionalEndpointConfigError MissingParametersError MissingServiceIdError
    OperationNotPageableError PaginationError ParamValidationError RangeError StubAssertionError
    StubResponseError UnStubbedResponseError UndefinedModelAttributeError UnknownClientMethodError
    UnknownEndpointResolutionBuiltInName UnknownKeyError UnknownParameterError UnknownServiceError
    UnknownServiceStyle UnseekableStreamError UnsupportedOutpostResourceError
    UnsupportedS3AccesspointConfigurationError UnsupportedS3ArnError UnsupportedS3ConfigurationError
    UnsupportedS3ControlArnError UnsupportedS3ControlConfigurationError ValidationError WaiterConfigError
    WaiterError
"""

SDK_FAULTS: Mapping[str, Fault] = MappingProxyType(
    dict.fromkeys(_OUTAGES.split(), Fault.OUTAGE)
    | dict.fromkeys(_DENIALS.split(), Fault.DENIAL)
    | dict.fromkeys(_MISTAKES.split(), Fault.MISTAKE)
    | dict.fromkeys(_OTHERS.split(), Fault.OTHER)
)
"""Every exception of ``botocore.exceptions``, by name: releases of the SDK differ in which they have."""

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "CapacityNotAvailableError": "throttled before, and kept to the pace that the service takes",
        "ConnectionClosedError": "{server} closed the connection without an answer",
        "ConnectTimeoutError": "no connection with {server} in time",
        "CredentialRetrievalError": "whoever hands out credentials gave none",
        "EndpointConnectionError": "no connection with {server}; see region and endpoint_url if it stays so",
        "HTTPClientError": "the connection with {server} failed",
        "MetadataRetrievalError": "the service that hands out this machine's credentials failed",
        "NoCredentialsError": "no credentials: none in variables, in a profile, or as a role of this machine",
        "NoRegionError": "no region; give region, or AWS_DEFAULT_REGION",
        "PartialCredentialsError": "half of the credentials: the access key, or its id, is missing",
        "ProxyConnectionError": "no connection with the proxy of this process",
        "ReadTimeoutError": "no answer of {server} in time",
        "SSLError": "the handshake with {server} was broken off",
    }
)
"""What some exceptions of the SDK, and those derived from them, say to an operator."""

STILL_EXPIRED = RuntimeError
"""What the SDK raises, outside of its own tree, for new credentials that have expired already.

That is an outage of whoever hands them out.
"""

COMMON_CODES: Mapping[str, Fault] = MappingProxyType(
    dict.fromkeys(
        (
            "BandwidthLimitExceeded",
            "EC2ThrottledException",
            "InternalError",
            "InternalFailure",
            "InternalServerError",
            "PriorRequestNotComplete",
            "ProvisionedThroughputExceededException",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "RequestTimeout",
            "RequestTimeoutException",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "SlowDown",
            "ThrottledException",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
        ),
        Fault.OUTAGE,
    )
    | dict.fromkeys(
        (
            "AccessDenied",
            "AccessDeniedException",
            "AuthFailure",
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "IncompleteSignatureException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "MalformedPolicyDocument",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "NotAuthorized",
            "OptInRequired",
            "PackedPolicyTooLarge",
            "RegionDisabledException",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "UnauthorizedOperation",
            "UnrecognizedClientException",
        ),
        Fault.DENIAL,
    )
    | dict.fromkeys(
        (
            "InvalidAction",
            "InvalidParameterCombination",
            "InvalidParameterValue",
            "InvalidQueryParameter",
            "MalformedQueryString",
            "MissingAction",
            "MissingParameter",
            "SerializationException",
            "UnknownOperationException",
            "ValidationError",
            "ValidationException",
        ),
        Fault.OTHER,
    )
)
"""What any service, the token service among them, may answer with; see AWS's page *Common Errors*."""


def fault_of_sdk(error: BotoCoreError) -> Fault:
    """The fault that an exception of the SDK stands for; of an unknown one, what its base class does.

    A certificate that does not fit is no outage: it stays so until somebody mends it, and may be an attack.
    """
    if isinstance(error, SSLError) and _is_about_the_certificate(error.kwargs.get("error")):
        return Fault.MISTAKE
    names = (each.__name__ for each in type(error).__mro__)
    return next((SDK_FAULTS[name] for name in names if name in SDK_FAULTS), Fault.OTHER)


def _is_about_the_certificate(reason: object) -> bool:
    """Whether a handshake failed for the certificate's sake, as far down as that is told."""
    seen: list[object] = []
    while isinstance(reason, BaseException) and reason not in seen:
        if isinstance(reason, CertificateError):
            return True
        seen.append(reason)
        # urllib3 keeps it in either place.
        reason = reason.__cause__ or reason.__context__ or getattr(reason, "reason", None)
    return False


def code_of(error: ClientError) -> str:
    """The code that the service answered with."""
    return str(error.response.get("Error", {}).get("Code", ""))


def fault_of_code(error: ClientError) -> Fault:
    """The fault that a service's answer stands for: by its code, or else by its HTTP status."""
    code = code_of(error)
    if code in COMMON_CODES:
        return COMMON_CODES[code]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or status == 429:
        return Fault.OUTAGE
    return Fault.DENIAL if status in (401, 403) else Fault.OTHER


def words_of(error: BotoCoreError | ClientError) -> str:
    """What happened, in one line.

    Of the SDK's own exceptions the class, words of our own, and the server that was asked: some quote the
    parameters of a call, key material among them.
    """
    if isinstance(error, ClientError):
        detail = str(error.response.get("Error", {}).get("Message", "")).partition("\n")[0]
        return f"{code_of(error)}: {detail}" if detail else code_of(error)
    name = type(error).__name__
    said = next((_WORDS[each.__name__] for each in type(error).__mro__ if each.__name__ in _WORDS), None)
    if isinstance(error, SSLError) and fault_of_sdk(error) is Fault.MISTAKE:
        said = "the certificate that {server} shows does not fit; see endpoint_url and AWS_CA_BUNDLE"
    return name if said is None else f"{said.format(server=_server(error))} ({name})"


def _server(error: BotoCoreError) -> str:
    """The server that was asked, which may be another service's: without a path, a query or a user."""
    try:
        url = urlsplit(str(error.kwargs.get("endpoint_url")))
    except ValueError:
        return "the endpoint"
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}" if url.netloc else "the endpoint"
