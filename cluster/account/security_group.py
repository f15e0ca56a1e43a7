"""Who may reach the cluster's nodes: SSH from one network, and the nodes among themselves.

Anything else that stands in the group is taken out of it, so that a caller whose address changed
leaves no door open at the old one. The module does not know how the caller's address is found.
"""

from dataclasses import dataclass

from botocore.exceptions import ClientError

from cluster.account.ownership import Site, foreign
from cluster.aws_errors import code_of
from cluster.ssh_from import checked_network

SSH_PORT = 22


@dataclass(frozen=True, slots=True, order=True)
class _Rule:
    """What a rule lets in: from `source`, a network or a group."""

    protocol: str
    first_port: int
    last_port: int
    source: str


def make_security_group(site: Site, vpc_id: str, *, ssh_from: str) -> str:
    """The group's id; its rules are made to be those that belong into it, and no others.

    Raises:
        ClusterError: A group of this name is there and is not ours.
        InputError: `ssh_from` is too wide.
    """
    ssh_from = checked_network(ssh_from)
    ec2, identity = site.clients.ec2, site.identity

    def make() -> str:
        try:
            return ec2.create_security_group(
                GroupName=identity.full_name,
                Description=f"Nodes of the falcon_ray cluster {identity.name}",
                VpcId=vpc_id,
                TagSpecifications=identity.specification("security-group"),
            )["GroupId"]
        except ClientError as error:
            if code_of(error) == "InvalidGroup.Duplicate":
                raise foreign("security group", identity.full_name, identity) from error
            raise

    group_id = site.find_or_make(
        "security group", find=lambda: find_security_groups(site, vpc_id), make=make
    )
    _set_rules(site, group_id, ssh_from)
    return group_id


def find_security_groups(site: Site, vpc_id: str) -> list[str]:
    """Ids of our groups in the network: one, or none."""
    pages = site.clients.ec2.get_paginator("describe_security_groups").paginate(
        Filters=[*site.identity.filters, {"Name": "vpc-id", "Values": [vpc_id]}]
    )
    return [each["GroupId"] for page in pages for each in page["SecurityGroups"]]


def _set_rules(site: Site, group_id: str, ssh_from: str) -> None:
    ec2 = site.clients.ec2
    wanted = {
        _Rule("tcp", SSH_PORT, SSH_PORT, ssh_from),
        _Rule("-1", -1, -1, group_id),
    }
    there = _rules(site, group_id)
    if wrong := [rule_id for rule_id, rule in there.items() if rule not in wanted]:
        site.change(
            f"rules {', '.join(wrong)} out of {group_id}",
            lambda: ec2.revoke_security_group_ingress(GroupId=group_id, SecurityGroupRuleIds=wrong),
        )
    if missing := sorted(wanted - set(there.values())):
        site.change(
            f"rules of {group_id}",
            lambda: ec2.authorize_security_group_ingress(
                GroupId=group_id,
                IpPermissions=[_permission(rule, group_id) for rule in missing],
                TagSpecifications=site.identity.specification("security-group-rule"),
            ),
        )


def _rules(site: Site, group_id: str) -> dict[str, _Rule]:
    """What the group lets in, by the rules' ids."""
    pages = site.clients.ec2.get_paginator("describe_security_group_rules").paginate(
        Filters=[{"Name": "group-id", "Values": [group_id]}]
    )
    return {
        each["SecurityGroupRuleId"]: _Rule(
            each["IpProtocol"],
            each.get("FromPort", -1),
            each.get("ToPort", -1),
            each.get("CidrIpv4")
            or each.get("ReferencedGroupInfo", {}).get("GroupId")
            or each.get("CidrIpv6")
            or each.get("PrefixListId", ""),
        )
        for page in pages
        for each in page["SecurityGroupRules"]
        if not each["IsEgress"]
    }


def _permission(rule: _Rule, group_id: str) -> dict[str, object]:
    if rule.source == group_id:
        return {"IpProtocol": rule.protocol, "UserIdGroupPairs": [{"GroupId": group_id}]}
    return {
        "IpProtocol": rule.protocol,
        "FromPort": rule.first_port,
        "ToPort": rule.last_port,
        "IpRanges": [{"CidrIp": rule.source, "Description": "SSH of the cluster's user"}],
    }
