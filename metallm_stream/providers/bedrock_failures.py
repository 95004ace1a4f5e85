"""What boto3 raises, as kinds of failure.

Invariant: AWS' own error codes decide before the status they came with.
"""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    TokenRetrievalError,
)

from metallm_stream.providers.base import ProviderFailure
from metallm_stream.providers.http_client import refused

_NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
# Codes that have come with other statuses than their own.
_STATUS = {
    "AccessDeniedException": 403,
    "ExpiredTokenException": 403,
    "InvalidSignatureException": 403,
    "UnrecognizedClientException": 403,
    "ModelTimeoutException": 408,
    "ModelErrorException": 424,
    "ModelNotReadyException": 429,
    "ServiceQuotaExceededException": 429,
    "ThrottlingException": 429,
    "TooManyRequestsException": 429,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
}


def failure_of(exc: Exception, *, was_reading: bool) -> ProviderFailure | None:
    """The failure that an exception of boto3's, or of our own below it, stands for.

    What else it raises is a malformed answer if it was reading one, and else no failure (`None`).
    """
    match exc:
        case ProviderFailure():
            return exc
        case ClientError():
            return _refused(exc)
        case ParamValidationError():
            return ProviderFailure("bad_request", str(exc), retriable=False)
        case _ if isinstance(exc, _NO_CREDENTIALS):
            return ProviderFailure("authentication", str(exc), retriable=False)
        case BotoCoreError():
            said = f"{type(exc).__name__}: {exc}"
            return ProviderFailure("connection", said, retriable=False)
        case _:
            said = f"the answer is unreadable: {type(exc).__name__}: {exc}"
            failure = ProviderFailure("malformed_answer", said, retriable=True)
            return failure if was_reading else None


def _refused(exc: ClientError) -> ProviderFailure:
    error, about = exc.response.get("Error", {}), exc.response.get("ResponseMetadata", {})
    code = str(error.get("Code", ""))
    status = _STATUS.get(code, int(about.get("HTTPStatusCode", 0)))
    return refused(
        status,
        about.get("HTTPHeaders", {}),
        message=str(error.get("Message") or code or "without a message"),
        code=code,
        request_id=about.get("RequestId"),
    )
