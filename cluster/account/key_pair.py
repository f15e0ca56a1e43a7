"""The cluster's own SSH key: made here, so that its private half never was anywhere else.

Every cluster has its own, for Ray copies the private half to the head. The module does not know
who logs in with it.
"""

from typing import Any

from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from cluster.account.ownership import Site, foreign
from cluster.aws_errors import code_of
from cluster.state.directory import StateDirectory
from falcon_ray.errors import ClusterError, InputError


def make_key_pair(site: Site, state: StateDirectory, *, has_nodes: bool) -> str:
    """The key pair's name, with its private half in the state directory.

    Args:
        site: What it is made with.
        state: Where the private half is kept, mode 0600.
        has_nodes: Whether there are nodes, which let in only whoever has the key they began with.

    Raises:
        ClusterError: A key pair of this name is not ours; or nodes run with a key whose private
            half is not on this machine.
    """
    ec2, identity = site.clients.ec2, site.identity
    if not state.private_key.exists() and not has_nodes:
        state.keep_secret(state.private_key, _new_private_key())
    public = _public_half(state) if state.private_key.exists() else ""
    there = _seen(site)
    if has_nodes and _comparable(public) not in [_comparable(key) for key in there.values()]:
        raise ClusterError(
            f"nodes of cluster {identity.name!r} run, but the key that they let in is not at "
            f"{state.private_key}; work on the machine that it was made on, or end the cluster by "
            "python -m cluster down"
        )
    for name, key in there.items():
        if _comparable(key) != _comparable(public):
            site.change(f"no key pair {name}", lambda name=name: ec2.delete_key_pair(KeyName=name))

    def find() -> list[str]:
        return [
            each for each, key in _seen(site).items() if _comparable(key) == _comparable(public)
        ]

    def make() -> str:
        try:
            return ec2.import_key_pair(
                KeyName=identity.full_name,
                PublicKeyMaterial=public.encode(),
                TagSpecifications=identity.specification("key-pair"),
            )["KeyName"]
        except ClientError as error:
            if code_of(error) == "InvalidKeyPair.Duplicate":
                raise foreign("key pair", identity.full_name, identity) from error
            raise

    site.find_or_make("key pair", find=find, make=make)
    return identity.full_name


def _seen(site: Site) -> dict[str, str]:
    """Public halves of our key pairs, by their names, which are ids to EC2."""
    answer: dict[str, Any] = site.clients.ec2.describe_key_pairs(
        Filters=site.identity.filters, IncludePublicKey=True
    )
    return {each["KeyName"]: each.get("PublicKey", "") for each in answer["KeyPairs"]}


def _new_private_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    )


def _public_half(state: StateDirectory) -> str:
    try:
        key = load_ssh_private_key(state.private_key.read_bytes(), password=None)
    except ValueError as error:
        raise InputError(
            f"{state.private_key} is no private key ({error}); remove the file, and another is "
            "made if no node runs"
        ) from None
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _comparable(public: str) -> tuple[str, ...]:
    """The key without the comment that may stand behind it."""
    return tuple(public.split()[:2])
