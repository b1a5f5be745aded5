"""A network of many nodes: an agent that tells each node's WireGuard device of the others, by a bus of NATS.

This file is the public surface. Routes are the direct ones of the agent, or those of a routing daemon on the interface.
"""

from threepipe.mesh.agent import Agent
from threepipe.mesh.bus import Bus, Listener, NatsBus, Secrets
from threepipe.mesh.joining import Joining, join
from threepipe.mesh.links import Links, MeshRoutes
from threepipe.mesh.membership import Change, Membership
from threepipe.mesh.records import Certificate, Record, Refused, Request, node_address
from threepipe.mesh.store import Keys, Store, make_authority, read_authority

__all__ = [
    "Agent",
    "Bus",
    "Certificate",
    "Change",
    "Joining",
    "Keys",
    "Links",
    "Listener",
    "Membership",
    "MeshRoutes",
    "NatsBus",
    "Record",
    "Refused",
    "Request",
    "Secrets",
    "Store",
    "join",
    "make_authority",
    "node_address",
    "read_authority",
]
