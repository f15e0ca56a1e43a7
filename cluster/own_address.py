"""The address under which the rest of the network sees this machine.

The module asks one service of AWS for it, and knows nothing of security groups.
"""

import ipaddress
import urllib.error
import urllib.request

from falcon_ray.errors import ClusterError

_SERVICE = "https://checkip.amazonaws.com"
_NEXT = "say ssh_from in the cluster's file, such as 203.0.113.7/32"


def own_address() -> str:
    """The caller's public IPv4 address.

    Raises:
        ClusterError: Nobody says.
    """
    try:
        with urllib.request.urlopen(_SERVICE, timeout=5) as answer:
            text = answer.read(100).decode("ascii", "replace")
    except OSError as error:  # URLError and time-outs are among them
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ClusterError(
            f"{_SERVICE} does not say what address you have: {reason}; {_NEXT}"
        ) from (None)
    return network_of(text)


def network_of(text: str) -> str:
    """The network of this one address, "203.0.113.7/32".

    Raises:
        ClusterError: It is none of IPv4.
    """
    try:
        return str(ipaddress.IPv4Network(text.strip()))
    except ValueError:
        raise ClusterError(
            f"{_SERVICE} says that your address is {text.strip()!r}, which is none of IPv4; {_NEXT}"
        ) from None
