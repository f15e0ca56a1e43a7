"""What AWS or its client refused, said in one line with a next step.

The module knows error codes. It does not know which calls there are or what they were for; the
caller says that in words.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError

from falcon_ray.errors import ClusterError, FalconRayError, InputError

_DENIED = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_UNKNOWN = frozenset(
    {
        "AuthFailure",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.SSOError,
    boto.TokenRetrievalError,
)
_NEXT = (
    (r"RequestLimitExceeded|Throttling\w*|TooManyRequests\w*|SlowDown", "try again in a minute"),
    (
        r"InsufficientInstanceCapacity|InsufficientFreeAddressesInSubnet|Unsupported",
        "try again later, or name other zones or types in the cluster's file",
    ),
    (
        r"\w*LimitExceeded\w*|TooManyBuckets|MaxSpotInstanceCountExceeded",
        "remove what is not needed any more, or ask for more by the console's Service Quotas",
    ),
    (
        r"InternalError|InternalFailure|ServiceUnavailable\w*|Unavailable",
        "it is AWS's own failure: try again later",
    ),
)
_LOG_IN = "log in (aws configure or aws sso login), set AWS_PROFILE, or give --profile NAME"


@contextmanager
def calling(doing: str) -> Iterator[None]:
    """Say what went wrong in the calls of AWS made inside.

    Args:
        doing: Such as "looking up the machine image".

    Raises:
        ClusterError: A call failed.
        InputError: The profile does not exist.
    """
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise explained(error, doing=doing) from error


def explained(error: BotoCoreError | ClientError, *, doing: str) -> FalconRayError:
    """The error in our words: one line, with what to do next."""
    if isinstance(error, ClientError):
        return ClusterError(f"{doing}: {_answer(error)}")
    if isinstance(error, boto.ProfileNotFound):
        return InputError(
            f"{_one_line(error)}; run aws configure list-profiles for those there are"
        )
    if isinstance(error, _NO_CREDENTIALS):
        return ClusterError(f"{doing}: no AWS credentials ({_one_line(error)}); {_LOG_IN}")
    if isinstance(error, (boto.ConnectionError, boto.HTTPClientError)):
        return ClusterError(
            f"{doing}: AWS cannot be reached ({_one_line(error)}); check the network and the "
            "region's name"
        )
    return ClusterError(f"{doing}: {_one_line(error)}")


def code_of(error: ClientError) -> str:
    """The error's code, such as "InvalidVpcID.NotFound"."""
    # Query services wrap codes of EC2 as "Client.UnauthorizedOperation".
    return str(error.response.get("Error", {}).get("Code", "?")).removeprefix("Client.")


def missing_permission(error: BaseException | None) -> str | None:
    """The action that was denied, such as "ec2:RunInstances"; None for other errors."""
    if not isinstance(error, ClientError) or code_of(error) not in _DENIED:
        return None
    named = re.search(r"not authorized to perform:? ([\w-]+:\w+)", _message(error))
    if named:
        return named.group(1)
    # Only EC2 has a code of its own, and it alone may leave the action out of its message.
    service = "ec2:" if code_of(error) == "UnauthorizedOperation" else ""
    return f"{service}{error.operation_name}"


def _answer(error: ClientError) -> str:
    code = code_of(error)
    if permission := missing_permission(error):
        return (
            f"the caller may not {permission}; ask the account's administrator for that permission"
        )
    if code in _EXPIRED:
        return f"the AWS credentials have expired ({code}); {_LOG_IN}"
    if code in _UNKNOWN:
        return f"AWS does not accept the credentials ({code}); {_LOG_IN}"
    if code == "OptInRequired":
        return (
            "the account has not enabled this region or service (OptInRequired); enable it in the "
            "account's settings or choose another region"
        )
    said = f"AWS answered {code}: {' '.join(_message(error).split())}"
    what_next = next((each for pattern, each in _NEXT if re.fullmatch(pattern, code)), None)
    return f"{said}; {what_next}" if what_next else said


def _message(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", ""))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
