# SPDX-License-Identifier: Apache-2.0
"""A green process that asks a slow database, and counts how often its hub turned meanwhile.

hub.py CONF    prints the turns of a green thread that wants one every 10 ms, and the seconds
"""

import sys
import time

from cepheid import concurrency

concurrency.patch()

import threading
from pathlib import Path

import sqlalchemy as sa

from cepheid import config
from cepheid.agent import Agent
from cepheid_plugins.database.records import InstanceUpdate

SLEEP = {"mysql": "SELECT SLEEP(1)", "postgresql": "SELECT pg_sleep(1)"}


def main() -> None:
    agent = Agent(config.load([sys.argv[1]]))
    database = agent.driver("database")
    database.instances_on_host("host1")  # connected
    turns = 0
    ended = False

    def turn() -> None:
        nonlocal turns
        while not ended:
            time.sleep(0.01)
            turns += 1

    counter = threading.Thread(target=turn)
    counter.start()
    started = time.monotonic()
    kind = database.url.get_backend_name()
    if kind == "sqlite":
        # The test holds the write lock until it sees this file, and a second longer.
        (Path(sys.argv[1]).parent / "asking").touch()
        database.update_instances("host1", [InstanceUpdate("x", None, None, {"progress": 0})])
    else:
        with database._connected().connect() as connection:
            connection.execute(sa.text(SLEEP[kind]))
    seconds = time.monotonic() - started
    ended = True
    counter.join()
    print(turns, seconds)


if __name__ == "__main__":
    main()
