# SPDX-License-Identifier: Apache-2.0
"""What the page on testing a task shows of a task that asks drivers."""

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.testing import Player, without
from cepheid_plugins.compute import power_state
from cepheid_plugins.hypervisor.driver import DomainNotFound
from cepheid_plugins.testing.names import uuid_of


# The page shows what follows.
class NoteGone(cepheid.Task):
    """Note the instances whose domains are gone."""

    drivers = ("database", "hypervisor")

    @periodic_task(spacing=60)
    def note_gone(self, context):
        hypervisor = self.agent.driver("hypervisor")
        rows = self.agent.driver("database").instances_on_host(self.agent.host)
        domains = hypervisor.domains()
        for row in rows:
            if row.uuid not in domains and is_gone(hypervisor, row.uuid):
                context.notice(row.uuid, f"{row.display_name} is gone")
                context.count("gone")


def is_gone(hypervisor, uuid):
    """Tell whether a domain is gone; not in a list is not gone."""
    try:
        hypervisor.power_state(uuid)
    except DomainNotFound:
        return True
    return False


def test_an_instance_without_a_domain_is_noted():
    with Player(NoteGone) as player:
        player.driver("database").populate(range(3))
        player.driver("hypervisor").populate(range(2))
        assert player.play(minutes=2).runs[-1].counters == {"gone": 1}


def test_a_domain_that_is_missing_from_one_list_is_not_gone():
    with Player(NoteGone) as player:
        for kind in ("database", "hypervisor"):
            player.driver(kind).populate(range(3))
        player.fault("hypervisor").lie("domains", without(uuid_of(1)))
        assert player.play(minutes=2).runs[-1].counters == {}
        assert player.fault("hypervisor").counted["power_state"] >= 1


def test_while_the_hypervisor_hangs_the_run_fails_and_the_next_one_works():
    with Player(NoteGone) as player:
        player.driver("database").populate(range(3))
        player.fault("hypervisor").block("domains", seconds=90)
        assert set(player.play(minutes=4).outcomes) == {"failed"}
        player.fault("hypervisor").recover()
        assert player.play(minutes=5).outcomes[-1] == "ok"


# The page ends here.
def test_the_domains_of_the_double_run_unless_they_are_told_otherwise():
    with Player(NoteGone) as player:
        hypervisor = player.driver("hypervisor")
        hypervisor.populate([0])
        assert hypervisor.domains()[uuid_of(0)].power_state == power_state.RUNNING
