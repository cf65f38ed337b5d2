# SPDX-License-Identifier: Apache-2.0
"""The values of ``instances.power_state``.

Source: Nova's nova/compute/power_state.py; 2 and 5 are not used.
"""

NOSTATE = 0
RUNNING = 1
PAUSED = 3
SHUTDOWN = 4
CRASHED = 6
SUSPENDED = 7

#: What a person calls them.
NAMES = {
    NOSTATE: "no state",
    RUNNING: "running",
    PAUSED: "paused",
    SHUTDOWN: "shut down",
    CRASHED: "crashed",
    SUSPENDED: "suspended",
}

#: The states in which no guest runs.
OFF = frozenset({NOSTATE, SHUTDOWN, CRASHED})


def name(state: int | None) -> str:
    """Return what a person calls a power state; NULL and unknown numbers too."""
    return "unknown" if state is None else NAMES.get(state, str(state))
