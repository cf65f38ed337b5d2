# SPDX-License-Identifier: Apache-2.0
"""The options that the operations on instances share: group ``[compute]``, and one of a task."""

from __future__ import annotations

from oslo_config import cfg

OPTIONS: list[cfg.Opt] = [
    cfg.IntOpt(
        "shutdown_timeout",
        default=60,
        min=0,
        deprecated_opts=[cfg.DeprecatedOpt("shutdown_timeout", group="DEFAULT")],
        help="Seconds that a guest has to shut down by itself before it is powered off. An "
        "image's property os_shutdown_timeout goes before it.",
    ),
    cfg.IntOpt(
        "shutdown_retry_interval",
        default=10,
        min=1,
        help="Seconds after which a guest that has not shut down is asked again.",
    ),
    cfg.StrOpt(
        "instances_path",
        default="$state_path/instances",
        deprecated_opts=[cfg.DeprecatedOpt("instances_path", group="DEFAULT")],
        help="The directory that holds a directory of files for each instance, named by its uuid. "
        "Nothing outside of it is ever deleted.",
    ),
    cfg.StrOpt(
        "instance_name_template",
        default="instance-%08x",
        deprecated_opts=[cfg.DeprecatedOpt("instance_name_template", group="DEFAULT")],
        help="What Nova calls the domain of an instance, by the id of its row. A domain of that "
        "name and of its instance's uuid is Nova's; of one with another name the definition is "
        "asked.",
    ),
    cfg.StrOpt(
        "shelved_path",
        default="$state_path/shelved",
        help="The directory in which 'cepheid instance shelve' keeps the disks of shelved "
        "instances. It is not used beside Nova, which keeps them as images.",
    ),
]

#: Of task poll_shelved_instances, and of 'cepheid instance shelve', which offloads at once for 0.
SHELVED_OFFLOAD_TIME = cfg.IntOpt(
    "shelved_offload_time",
    default=0,
    min=-1,
    deprecated_opts=[cfg.DeprecatedOpt("shelved_offload_time", group="DEFAULT")],
    help="Seconds after which a shelved instance is removed from its host. 0 means together with "
    "the shelving, which then leaves this task nothing to do; -1 means never.",
)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options for oslo.config's generator."""
    return [("compute", OPTIONS)]
