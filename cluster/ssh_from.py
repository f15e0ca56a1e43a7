"""The one network that may reach a cluster's nodes, and how wide it may be.

The module knows addresses. It does not know whose they are or where rules about them are kept.
"""

import ipaddress

from falcon_ray.errors import InputError

MY_ADDRESS = "my-address"
"""What stands in the cluster's file for the caller's own address."""
WIDEST_PREFIX = 16


def checked_network(text: str | None) -> str:
    """The network in CIDR notation, such as "203.0.113.7/32".

    Raises:
        InputError: It is none of IPv4, or wider than /16.
    """
    try:
        network = ipaddress.IPv4Network(text or "")
    except ValueError as error:
        raise InputError(
            f"ssh_from must be {MY_ADDRESS} or a network of IPv4 such as 203.0.113.7/32, got "
            f"{text!r}: {error}"
        ) from None
    if network.prefixlen < WIDEST_PREFIX:
        raise InputError(
            f"ssh_from {network} lets {network.num_addresses} addresses connect; name a network of "
            f"/{WIDEST_PREFIX} or narrower, best your own address with /32"
        )
    return str(network)
