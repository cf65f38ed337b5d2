# SPDX-License-Identifier: Apache-2.0
"""The options of group ``[network]``."""

from __future__ import annotations

from oslo_config import cfg

from cepheid import drivers


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options for oslo.config's generator."""
    return [("network", [drivers.driver_option("network")])]
