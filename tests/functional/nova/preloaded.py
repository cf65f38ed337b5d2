# SPDX-License-Identifier: Apache-2.0
"""Run by real Nova's Python: imports Nova, which takes seconds, and runs scripts in children.

preloaded.py    reads requests as JSON, a line each, and prints the exit status of each: ``command``
                is a script with its arguments, ``stdin``, ``stdout`` and ``stderr`` are files
"""

import json
import os
import runpy
import sys

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "1"  # of nova-manage as well

from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything else of Nova

import nova.cmd.manage
import nova.compute.manager  # noqa: F401
from nova import objects


def run(request):
    """Run a script with its files, in this process."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
        os.dup2(os.open(request[name], flags, 0o600), number)
    sys.stdin = os.fdopen(0)
    sys.argv = request["command"]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


def main():
    objects.register_all()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            # Its status is the interpreter's, also where an exception ends it.
            run(json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
