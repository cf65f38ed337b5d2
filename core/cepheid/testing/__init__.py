# SPDX-License-Identifier: Apache-2.0
"""The test kit, for tasks of any package; it needs the core alone, and no pytest.

A player plays hours of an agent in milliseconds, with the real service, timers, runner and
journal; what is not real is the clock, chance and the drivers::

    from cepheid.testing import Player

    def test_old_dumps_go_within_a_day(tmp_path):
        settings = f"[prune_guest_dumps]\\npath = {tmp_path}\\n"
        with Player(PruneGuestDumps, settings=settings) as player:   # a class, or "its_name"
            played = player.play(hours=25)
        assert played.outcomes == ["ok"]
        assert [change.target for change in played.changes] == [...]

======================================= =====================================================
``Player(*tasks, settings=, drivers=)`` ``settings`` begins in ``[DEFAULT]``; ``drivers`` are
                                        objects by kind, and for the rest doubles are made
``player.play(hours=, minutes=, ...)``  lets time pass; gives ``.runs``, ``.changes``,
                                        ``.outcomes`` and ``.of(task)`` of that time
``player.run(name, dry_run=None)``      runs a task once, now; gives the run
``player.runs``, ``player.changes``     all so far
``player.reload(settings)``             as SIGHUP does; ``restart(settings)`` as systemd does
``player.pause(task)``, ``resume()``    as the commands do
``player.crash()``                      as SIGKILL does, then it is started again;
                                        ``crash_in(kind, call, after=False)`` in the next such call
``player.driver(kind)``                 the driver itself, to set up its world
``player.fault(kind)``                  its faults: ``vanish()``, ``block(seconds=)``,
                                        ``release()``, ``lie(call, answer)``, ``recover()``;
                                        what was called: ``made``, ``counted``
``player.clock``                        a :class:`FakeClock`
``player.agent``, ``player.task(name)`` the agent that is played, and a task of its
======================================= =====================================================

Without timers: ``FakeAgent(path, drivers, settings)``, ``agent.build(Task)``, ``agent.run(task)``.
"""

from cepheid.testing.agent import FakeAgent
from cepheid.testing.clock import FakeClock, LowestRandom, eventually
from cepheid.testing.death import Crash
from cepheid.testing.faults import ANY, Call, Faults, Watched, half, stale, without
from cepheid.testing.played import Played
from cepheid.testing.player import Player

__all__ = [
    "ANY",
    "Call",
    "Crash",
    "FakeAgent",
    "FakeClock",
    "Faults",
    "LowestRandom",
    "Played",
    "Player",
    "Watched",
    "eventually",
    "half",
    "stale",
    "without",
]
