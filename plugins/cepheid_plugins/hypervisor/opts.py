# SPDX-License-Identifier: Apache-2.0
"""The options of group ``[hypervisor]``."""

from __future__ import annotations

from oslo_config import cfg

from cepheid import drivers

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "uri",
        default="qemu:///system",
        deprecated_opts=[cfg.DeprecatedOpt("connection_uri", group="libvirt")],
        help="The libvirt connection URI, as virsh takes it.",
    ),
    cfg.IntOpt(
        "call_timeout",
        default=60,
        min=1,
        help="Seconds after which a libvirt call that has not returned is given up.",
    ),
    cfg.IntOpt(
        "keepalive_interval",
        default=5,
        min=0,
        help="Seconds between two keep-alive messages to libvirtd. 0 for none.",
    ),
    cfg.IntOpt(
        "keepalive_count",
        default=3,
        min=1,
        help="Unanswered keep-alive messages after which the connection counts as lost.",
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options for oslo.config's generator."""
    return [("hypervisor", [drivers.driver_option("hypervisor"), *OPTIONS])]
