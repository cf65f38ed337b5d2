# SPDX-License-Identifier: Apache-2.0
"""A process that sends notifications by an agent's own means, in the mode that its agent has.

notifying.py CONF NAME COUNT [DIES]    sends NAME-0, NAME-1, ... as compute.instance.exists, then
                                       gives what waits a moment, as a command does. With DIES it
                                       is killed when the broker has so many of its messages, and
                                       the last of them is not yet recorded as sent
"""

from __future__ import annotations

import os
import signal
import sys

from cepheid import concurrency

BATCH = 50


def main(conf_file: str, name: str, count: int, dies: int = 0) -> None:
    from cepheid import config
    from cepheid.agent import Agent
    from cepheid_plugins.notifications.driver import Notification
    from cepheid_plugins.notifications.outbox import Outbox

    if dies:
        record_sent, recorded = Outbox.record_sent, []

        def record_or_die(outbox: Outbox, message: object) -> None:
            recorded.append(message)
            if len(recorded) == dies:
                os.kill(os.getpid(), signal.SIGKILL)
            record_sent(outbox, message)

        Outbox.record_sent = record_or_die

    agent = Agent(config.load([conf_file]))
    notifier = agent.driver("notifications")
    told = [Notification("compute.instance.exists", {"name": f"{name}-{n}"}) for n in range(count)]
    for begin in range(0, count, BATCH):
        notifier.send(told[begin : begin + BATCH])
    print("taken", flush=True)
    agent.close()


if __name__ == "__main__":
    if os.environ.get("CEPHEID_TEST_CONCURRENCY") == "eventlet":
        concurrency.patch()
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
