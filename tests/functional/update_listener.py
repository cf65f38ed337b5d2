# SPDX-License-Identifier: Apache-2.0
"""A scheduler of one's own, in a process: a HostManager that the message bus feeds.

update_listener.py CONF    answers each host named on its standard input, a line each, with
                           {"confirmed": …, "instances": […]}; ends with its input
"""

from __future__ import annotations

import json
import logging
import socket
import sys

from cepheid import config
from cepheid.agent import Agent
from cepheid_plugins.scheduler import HostManager
from cepheid_plugins.scheduler.server import UpdateServer


def main() -> None:
    agent = Agent(config.load([sys.argv[1]]))
    logging.basicConfig(level=logging.INFO)
    hosts = HostManager(agent.driver("database"))
    with UpdateServer(agent.conf, hosts, socket.gethostname()):
        print("listening", flush=True)
        for line in sys.stdin:
            host = line.strip()
            answer = {
                "confirmed": hosts.is_confirmed(host),
                "instances": sorted(hosts.instances(host)),
            }
            print(json.dumps(answer), flush=True)
    agent.close()


if __name__ == "__main__":
    main()
