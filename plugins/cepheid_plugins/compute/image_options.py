# SPDX-License-Identifier: Apache-2.0
"""The options of task run_image_cache_manager_pass, which ``cepheid image`` reads too."""

from __future__ import annotations

from oslo_config import cfg

from cepheid.task_options import MAX_SPACING_SECONDS
from cepheid_plugins.compute.image_verdicts import Rules

#: The task's name.
GROUP = "run_image_cache_manager_pass"

#: How long the registry of a storage's users is waited for: nova-compute holds it for an instant.
REGISTRY_ATTEMPTS = 100
REGISTRY_SECONDS = 0.1


def _of_nova(name: str, pike: str, pike_group: str = "DEFAULT") -> list[cfg.DeprecatedOpt]:
    return [
        cfg.DeprecatedOpt(name, group="image_cache"),
        cfg.DeprecatedOpt(pike, group=pike_group),
    ]


OPTIONS: list[cfg.Opt] = [
    cfg.IntOpt(
        "spacing",
        default=2400,
        max=MAX_SPACING_SECONDS,
        deprecated_opts=_of_nova("manager_interval", "image_cache_manager_interval"),
        help="Seconds between two runs. 0 means 60; a negative number switches the task off.",
    ),
    cfg.BoolOpt(
        "remove_unused_base_images",
        default=True,
        deprecated_opts=_of_nova("remove_unused_base_images", "remove_unused_base_images"),
        help="Remove images that nobody uses. If not, those in use are still marked as such.",
    ),
    cfg.IntOpt(
        "remove_unused_original_minimum_age_seconds",
        default=86400,
        min=0,
        deprecated_opts=_of_nova(
            "remove_unused_original_minimum_age_seconds",
            "remove_unused_original_minimum_age_seconds",
        ),
        help="Seconds after its last use at which an image, swap or ephemeral file is set aside.",
    ),
    cfg.IntOpt(
        "remove_unused_resized_minimum_age_seconds",
        default=3600,
        min=0,
        deprecated_opts=_of_nova(
            "remove_unused_resized_minimum_age_seconds",
            "remove_unused_resized_minimum_age_seconds",
            "libvirt",
        ),
        help="The same, for an image that was resized for a flavor.",
    ),
    cfg.StrOpt(
        "subdirectory_name",
        default="_base",
        deprecated_opts=_of_nova("subdirectory_name", "image_cache_subdirectory_name"),
        help="The name of the image cache's directory in [compute] instances_path.",
    ),
    cfg.IntOpt(
        "removed_retention_seconds",
        default=86400,
        min=0,
        help="Seconds for which a file that was set aside is kept before it is deleted. If it "
        "turns out to be used meanwhile, it is brought back.",
    ),
]


def rules(conf: cfg.ConfigOpts) -> Rules:
    """Return what the options say.

    :param conf: the options' group
    """
    return Rules(
        remove=conf.remove_unused_base_images,
        original_age_seconds=conf.remove_unused_original_minimum_age_seconds,
        resized_age_seconds=conf.remove_unused_resized_minimum_age_seconds,
        aside_seconds=conf.removed_retention_seconds,
    )
