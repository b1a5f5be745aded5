"""The operating system, chosen once. Every platform supplies these names, and no other code asks which system it is.

A platform module imports nothing at import time that other systems lack. Four files test the system themselves, as
they cannot import `platforms` or have no use for its types: `net/doorbell` and `net/connect`, which are below it;
`core/fast`, which chooses the native core; and `wireguard/quick/daemon`, which forks.
"""

import sys

if sys.platform == "win32":
    from threepipe.platforms.windows.files import (
        COMMAND_ESCAPE,
        INHERITS_DESCRIPTORS,
        LINGER,
        PIPES_CAN_BE_AWAITED,
        access_mode,
        enlarge_pipe,
        get_blocking,
        is_exposed,
        is_private,
        runtime_folder,
        set_blocking,
        try_lock,
        unlock,
    )
else:
    from threepipe.platforms.posix import (
        COMMAND_ESCAPE,
        INHERITS_DESCRIPTORS,
        LINGER,
        PIPES_CAN_BE_AWAITED,
        access_mode,
        enlarge_pipe,
        get_blocking,
        is_exposed,
        is_private,
        runtime_folder,
        set_blocking,
        try_lock,
        unlock,
    )

if sys.platform == "linux":
    from threepipe.platforms.linux.device import adapters, open_existing
    from threepipe.platforms.linux.enclosure import EnclosedProgram, Enclosure, enclose, end_by, kept_signals
    from threepipe.platforms.linux.handover import accept_handover, connect_handover, listen_handover
    from threepipe.platforms.linux.identity import become, find_user
    from threepipe.platforms.linux.inherited import PACKET_INFORMATION, open_inherited
    from threepipe.platforms.linux.inherited_device import inherit
    from threepipe.platforms.linux.namespace import namespace_names, private_networks
    from threepipe.platforms.linux.netlink import make_no_link_local
    from threepipe.platforms.linux.next_hops import host_addresses, open_next_hops
    from threepipe.platforms.linux.policy import (
        ROUTES_BY_MARK,
        add_routes,
        divert,
        free_table,
        network_scope,
        path_mtu,
        routed,
        table_number,
        undivert,
    )
    from threepipe.platforms.linux.probe import probe
    from threepipe.platforms.linux.processes import process_file
    from threepipe.platforms.linux.service.client import adopt, create
    from threepipe.platforms.linux.service.running import serve
    from threepipe.platforms.linux.sniff import open_capture
    from threepipe.platforms.linux.sockets import bind_to_interface, enlarge_buffers, mark_socket, open_datagrams
    from threepipe.platforms.unsupported import (
        CONFIG_FOLDERS,
        DNS_TOOLS,
        ONE_NETWORK,
        adapter_name,
        bypass,
        remove_bypass,
        remove_leftovers,
    )
elif sys.platform == "win32":
    from threepipe.platforms.unsupported import (
        CONFIG_FOLDERS,
        DNS_TOOLS,
        ONE_NETWORK,
        PACKET_INFORMATION,
        ROUTES_BY_MARK,
        EnclosedProgram,
        Enclosure,
        accept_handover,
        adapter_name,
        add_routes,
        adopt,
        become,
        bypass,
        connect_handover,
        divert,
        enclose,
        end_by,
        find_user,
        free_table,
        host_addresses,
        inherit,
        kept_signals,
        listen_handover,
        make_no_link_local,
        namespace_names,
        network_scope,
        open_capture,
        open_inherited,
        open_next_hops,
        path_mtu,
        private_networks,
        process_file,
        remove_bypass,
        remove_leftovers,
        routed,
        serve,
        table_number,
        undivert,
    )
    from threepipe.platforms.windows.device import adapters, create, open_existing
    from threepipe.platforms.windows.probe import probe
    from threepipe.platforms.windows.sockets import bind_to_interface, enlarge_buffers, mark_socket, open_datagrams
else:
    from threepipe.platforms.bsd.here import (
        CONFIG_FOLDERS,
        DNS_TOOLS,
        ONE_NETWORK,
        adapter_name,
        adapters,
        add_routes,
        bypass,
        create,
        open_existing,
        path_mtu,
        probe,
        remove_bypass,
        remove_leftovers,
        table_number,
    )
    from threepipe.platforms.bsd.sockets import bind_to_interface, mark_socket
    from threepipe.platforms.unsupported import (
        PACKET_INFORMATION,
        ROUTES_BY_MARK,
        EnclosedProgram,
        Enclosure,
        accept_handover,
        adopt,
        become,
        connect_handover,
        divert,
        enclose,
        end_by,
        enlarge_buffers,
        find_user,
        free_table,
        host_addresses,
        inherit,
        kept_signals,
        listen_handover,
        make_no_link_local,
        namespace_names,
        network_scope,
        open_capture,
        open_datagrams,
        open_inherited,
        open_next_hops,
        private_networks,
        process_file,
        routed,
        serve,
        undivert,
    )

__all__ = [
    "COMMAND_ESCAPE",
    "CONFIG_FOLDERS",
    "DNS_TOOLS",
    "INHERITS_DESCRIPTORS",
    "LINGER",
    "ONE_NETWORK",
    "PACKET_INFORMATION",
    "PIPES_CAN_BE_AWAITED",
    "ROUTES_BY_MARK",
    "EnclosedProgram",
    "Enclosure",
    "accept_handover",
    "access_mode",
    "adapter_name",
    "adapters",
    "add_routes",
    "adopt",
    "become",
    "bind_to_interface",
    "bypass",
    "connect_handover",
    "create",
    "divert",
    "enclose",
    "end_by",
    "enlarge_buffers",
    "enlarge_pipe",
    "find_user",
    "free_table",
    "get_blocking",
    "host_addresses",
    "inherit",
    "is_exposed",
    "is_private",
    "kept_signals",
    "listen_handover",
    "make_no_link_local",
    "mark_socket",
    "namespace_names",
    "network_scope",
    "open_capture",
    "open_datagrams",
    "open_existing",
    "open_inherited",
    "open_next_hops",
    "path_mtu",
    "private_networks",
    "probe",
    "process_file",
    "remove_bypass",
    "remove_leftovers",
    "routed",
    "runtime_folder",
    "serve",
    "set_blocking",
    "table_number",
    "try_lock",
    "undivert",
    "unlock",
]
