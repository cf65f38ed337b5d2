# SPDX-License-Identifier: Apache-2.0
"""Checks a distribution: what ``cepheid task check`` prints."""

from __future__ import annotations

from collections.abc import Callable

from cepheid.testing.conformance import metadata, sandbox
from cepheid.testing.conformance.findings import Finding


def check(distribution: str, told: Callable[[str], object] = lambda task: None) -> list[Finding]:
    """Check an installed distribution and each of its tasks; return the lines of the report.

    :param told: called with each task's name before it is checked
    :raises PluginError: there is no such distribution
    """
    found = metadata.find(distribution)
    findings = metadata.check(found)
    for plugin in metadata.tasks_of(found):
        told(plugin.name)
        findings += sandbox.check(plugin.distribution, plugin.name)
    return findings
