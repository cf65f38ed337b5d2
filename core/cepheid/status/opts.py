# SPDX-License-Identifier: Apache-2.0
"""The options of group ``[status]``."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "status"

OPTIONS: list[cfg.Opt] = [
    cfg.BoolOpt(
        "enabled",
        default=False,
        help="Answer HTTP requests: the page, /healthz, /readyz and /metrics. It needs "
        "cepheid[status]. This group is read at the start only.",
    ),
    cfg.IPOpt(
        "listen_address",
        default="127.0.0.1",
        help="The address to listen on. One that other machines can reach needs allow_remote.",
    ),
    cfg.PortOpt("port", default=9723, help="The TCP port to listen on. 0 for any that is free."),
    cfg.BoolOpt(
        "allow_remote",
        default=False,
        help="Let other machines reach /healthz, /readyz and /metrics, by an address that is not "
        "a loopback one. The page, and running tasks, stay this host's.",
    ),
    cfg.ListOpt(
        "allowed_hosts",
        default=[],
        help="Further names by which a request from this host may call this server, such as that "
        "of a proxy. The host's own name and IP addresses always may.",
    ),
    cfg.StrOpt(
        "token_file",
        sample_default="<state_path>/cepheid-status-token",
        help="The file with the token that running a task needs. It is made where it is missing, "
        "must belong to the agent's user or root, and must be readable by nobody else.",
    ),
    cfg.BoolOpt(
        "token_for_reading",
        default=False,
        help="Ask for the token for the page's data and for /metrics as well.",
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options for oslo.config's generator."""
    return [(GROUP, OPTIONS)]
