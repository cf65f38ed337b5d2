# SPDX-License-Identifier: Apache-2.0
"""The quick start, as its page has it, on a real libvirtd with real guests."""

import json

import pytest

from tests import documentation
from tests.functional.agents import Installation
from tests.functional.processes import wait_until

pytestmark = pytest.mark.functional

PAGE = documentation.SOURCE / "quickstart.rst"


@pytest.fixture
def guests(libvirtd):
    uuids = [libvirtd.add_guest(f"web-{number}") for number in (1, 2)]
    yield uuids
    libvirtd.end_guests()


@pytest.fixture
def installation(libvirtd, tmp_path, guests):
    """What the page's first configuration makes, away from /var/lib and qemu:///system."""
    configuration = next(b.text for b in documentation.blocks(PAGE) if b.language == "ini")
    installation = Installation(tmp_path, f"{configuration}\n[hypervisor]\nuri = {libvirtd.uri}\n")
    yield installation
    installation.close()


def test_the_pages_commands_take_a_host_in_and_follow_its_guests(libvirtd, guests, installation):
    shown = [
        words for block in documentation.blocks(PAGE) for words in documentation.commands(block)
    ]
    before_the_agent = shown[: shown.index(["agent"])]
    assert ["host", "adopt"] in before_the_agent
    printed = {" ".join(words): installation.run(*words) for words in before_the_agent}

    assert "2 domains would be adopted" in printed["host adopt --dry-run"].stderr
    assert "web-1" in printed["instance list"].stdout
    # "After an adoption there should be none."
    assert "ok in" in printed["task run sync_power_states --dry-run"].stderr
    assert "planned" not in printed["task run sync_power_states --dry-run"].stdout

    installation.start_agent()
    for words in shown[shown.index(["agent"]) + 1 :]:
        assert installation.run(*words).returncode == 0

    # "Stop a guest with virsh, run sync_power_states, and look at instance show."
    connection = libvirtd.connect()
    connection.lookupByUUIDString(guests[0]).destroy()
    connection.close()
    wait_until(
        lambda: installation.run("task", "run", "sync_power_states", check=False).returncode == 0
    )
    instance = json.loads(installation.run("instance", "show", guests[0], "-f", "json").stdout)
    assert instance["vm_state"] == "stopped", instance
    assert installation.stop_agent() == 0
