# SPDX-License-Identifier: Apache-2.0
"""A real agent with one task, for whoever shows it."""

import json
import os

import pytest

from tests.distributions import Distributions
from tests.functional.agents import Installation
from tests.functional.processes import wait_until

TASK = '''
import os, time
import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.progress import each

class Plugin(cepheid.Task):
    """Change one thing after the other."""

    @periodic_task(spacing=3600, run_immediately=True)
    def far(self, context):
        for number in each(range(4)):
            context.change("thing", f"it-{number}", 0, 1, "a test", do=lambda: None)
            while number == 2 and not os.path.exists(self.agent.state_path / "go"):
                time.sleep(0.05)
        if os.path.exists(self.agent.state_path / "fail"):
            raise OSError("it fell")
'''


@pytest.fixture
def installation(tmp_path):
    """An agent with one task, which waits in its third of four steps until it is told to go."""
    site, path = tmp_path / "site", tmp_path / "state"
    site.mkdir()
    path.mkdir()
    distributions = Distributions(site)
    distributions.add_task("acme", "far", TASK)
    made = Installation(path, "enabled_tasks = *\ndisabled_tasks = bundled\n")
    made.environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "300"}
    yield made
    made.close()
    distributions.remove()


@pytest.fixture
def wait_for_task(installation):
    """Wait until something is true of the agent's task, as an overview has it."""

    def wait(condition):
        def look():
            overview = json.loads(installation.run("status", "-f", "json", check=False).stdout)
            return condition(overview["tasks"][0])

        wait_until(look, installation.read_log)

    return wait
