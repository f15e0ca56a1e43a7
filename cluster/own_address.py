"""The address under which the rest of the network sees this machine.

The module asks one service of AWS for it, and knows nothing of security groups.
"""

import ipaddress
import urllib.error
import urllib.request

from falcon_ray.errors import ClusterError

_SERVICE = "https://checkip.amazonaws.com"
_NEXT = "say ssh_from in the cluster's file, such as 203.0.113.7/32"


def own_address(service: str = _SERVICE) -> str:
    """The network of the caller's public address alone, such as "203.0.113.7/32".

    Args:
        service: An URL that answers with the address it is asked from.

    Raises:
        ClusterError: It does not answer, or with something else.
    """
    try:
        with urllib.request.urlopen(service, timeout=5) as answer:  # noqa: S310 - an https constant
            text = answer.read(100).decode("ascii", "replace").strip()
    except OSError as error:  # which time-outs and refusals of urllib are
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ClusterError(
            f"{service} does not say what address you have: {reason}; {_NEXT}"
        ) from (error)
    try:
        return f"{ipaddress.IPv4Address(text)}/32"
    except ValueError:
        raise ClusterError(
            f"{service} says that your address is {text!r}, which is none of IPv4; {_NEXT}"
        ) from None
