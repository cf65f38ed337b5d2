# SPDX-License-Identifier: Apache-2.0
"""Doubles: drivers in memory, one for each kind, found through entry points.

The core knows no driver's contract, so whoever defines a kind offers its double: an entry point
in ``cepheid.testing`` that is named as the kind, called with a :class:`~cepheid.clock.Clock` and
a directory of its own. What it returns keeps the kind's contract. It may have besides:

- ``unavailable``: the class of the error that the kind's contract has for no answer;
- ``changes``: a number that grows whenever the double is changed, by whatever call;
- ``tells_only``: true where that is only what somebody was told: it need not go through the door
  for changes, and a dry run tells nothing;
- ``calls`` or ``statements``: a Counter of what a real driver would have asked, by name;
- ``populate(numbers)``: makes the things of these numbers, alike each time, and of every sort
  that the kind knows, so that there is something to do for a task that is tried out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cepheid import loading
from cepheid.clock import Clock

NAMESPACE = "cepheid.testing"


def make(kind: str, clock: Clock, path: Path) -> Any:
    """Return a double of `kind`; None where nothing that is installed offers one.

    :param path: a directory of its own
    :raises PluginError: it cannot be loaded
    """
    for plugin in loading.discover(NAMESPACE):
        if plugin.name == kind:
            return plugin.load()(clock, path)
    return None
