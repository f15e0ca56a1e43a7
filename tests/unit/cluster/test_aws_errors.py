import pytest
from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError

from cluster.aws_errors import calling, explained, missing_permission
from falcon_ray.errors import ClusterError, InputError
from tests.unit.cluster.plan_fakes import denied, unreachable


def answer(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "RunInstances")


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (boto.NoCredentialsError(), "no AWS credentials (Unable to locate credentials); log in"),
        (boto.UnauthorizedSSOTokenError(), "no AWS credentials (The SSO session"),
        (unreachable(), "AWS cannot be reached (Could not connect to the endpoint URL"),
        (boto.ReadTimeoutError(endpoint_url="https://x"), "AWS cannot be reached (Read timeout"),
        (answer("ExpiredToken"), "the AWS credentials have expired (ExpiredToken); log in"),
        (answer("InvalidClientTokenId"), "AWS does not accept the credentials (InvalidClie"),
        (answer("OptInRequired"), "the account has not enabled this region"),
        (answer("Other", "two\nlines"), "AWS answered Other: two lines"),
        (answer("VpcLimitExceeded", "full"), "AWS answered VpcLimitExceeded: full; remove what"),
        (answer("VcpuLimitExceeded", "0"), "AWS answered VcpuLimitExceeded: 0; remove what is"),
        (answer("RequestLimitExceeded", "!"), "AWS answered RequestLimitExceeded: !; try again"),
        (answer("InsufficientInstanceCapacity", "-"), "AWS answered InsufficientInstanceCapac"),
        (answer("UnauthorizedOperation"), "the caller may not ec2:RunInstances; ask"),
        (answer("Client.UnauthorizedOperation"), "the caller may not ec2:RunInstances; ask"),
        (denied("GetParameter", "ssm:GetParameter"), "the caller may not ssm:GetParameter; ask"),
    ],
)
def test_errors_are_one_line_with_a_next_step(
    error: BotoCoreError | ClientError, part: str
) -> None:
    found = explained(error, doing="looking")
    assert isinstance(found, ClusterError)
    assert str(found).startswith(f"looking: {part}")
    assert "\n" not in str(found)


def test_missing_profile_is_a_mistake_in_the_command() -> None:
    found = explained(boto.ProfileNotFound(profile="me"), doing="connecting")
    assert isinstance(found, InputError)
    assert "profile (me)" in str(found)


def test_other_errors_are_no_missing_permission() -> None:
    assert missing_permission(answer("Throttling")) is None
    assert missing_permission(ValueError()) is None
    assert missing_permission(None) is None


def test_cause_is_kept() -> None:
    error = unreachable()
    with pytest.raises(ClusterError) as caught, calling("looking"):
        raise error
    assert caught.value.__cause__ is error
