# SPDX-License-Identifier: Apache-2.0
"""Packages of tasks with typical mistakes, each with the check that has to find it.

All of them are the good one with one thing made wrong.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODULE = '''
import logging
import os
from pathlib import Path

from oslo_config import cfg

import cepheid
from cepheid import errors
from cepheid.periodic_task import periodic_task

LOG = logging.getLogger(__name__)


class Sweep(cepheid.Task):
    """Stop guests that nobody wants, and delete their dumps."""

    options = [
        cfg.StrOpt("dumps", default="/var/lib/acme/dumps", help="The directory of the dumps."),
        cfg.IntOpt("max_age_days", default=30, min=1, help="Days after which a dump is deleted."),
        cfg.StrOpt("token", default="", secret=True, help="What the shelf wants to be told."),
    ]
    drivers = ("database", "hypervisor")

    def __init__(self, agent):
        super().__init__(agent)
        self.database = agent.driver("database")
        self.hypervisor = agent.driver("hypervisor")

    @periodic_task(spacing=600)
    def sweep(self, context):
        rows = self.database.instances_on_host(self.agent.host)
        domains = self.hypervisor.domains()
        for row in rows:
            if row.vm_state != "soft-delete" or row.uuid not in domains:
                continue
            if row.updated_at is None:
                context.skip(row.uuid, "nobody knows since when")
            elif domains[row.uuid].power_state == 1:
                self.stop(context, row)
        now = self.agent.clock.utcnow().timestamp()
        for path in sorted(Path(self.conf.dumps).iterdir()):
            if now - path.stat().st_mtime > self.conf.max_age_days * 86400:
                context.change("delete", str(path), reason="it is old", do=path.unlink)

    def stop(self, context, row):
        context.change(
            "stop",
            target=row.uuid,
            before=row.vm_state,
            reason="it is to be deleted",
            do=lambda: self.hypervisor.power_off(row.uuid),
        )
'''

METADATA = """\
Metadata-Version: 2.1
Name: {name}
Version: 1.0
Summary: Sweeps
License: Apache-2.0
Requires-Dist: cepheid>=0.1
Requires-Python: >=3.11

Sweeps what nobody wants.
"""


@dataclass(frozen=True)
class Mistake:
    """What is made wrong of the good package.

    :param found_by: the check that has to find it
    :param old: what of the module is replaced; at the first place, or at the end where it is empty
    :param metadata: the same for the metadata, (old, new)
    """

    name: str
    found_by: str
    old: str = ""
    new: str = ""
    metadata: tuple[str, str] = ("", "")
    entry_point: str = "sweep = {package}.sweep:Sweep"
    file: str = "sweep"
    also: tuple[str, str] = ("", "")

    @property
    def source(self) -> str:
        assert self.old in MODULE, self.name
        assert self.also[0] in MODULE, self.name
        text = MODULE.replace(self.old, self.new, 1) if self.old else MODULE + self.new
        return text.replace(*self.also, 1) if self.also[0] else text


GOOD = Mistake("good", "")

BEGIN = "        rows = self.database"
LOOP = "        for row in rows:\n"
IMPORTS = "LOG = logging.getLogger(__name__)\n"
DO = "do=lambda: self.hypervisor.power_off(row.uuid),"

MISTAKES = [
    Mistake("needs-no-cepheid", "metadata", metadata=("Requires-Dist: cepheid>=0.1\n", "")),
    Mistake("any-python", "metadata", metadata=("Requires-Python: >=3.11\n", "")),
    Mistake("no-version", "metadata", metadata=("Version: 1.0", "Version: 0.0.0")),
    Mistake("no-licence", "package", metadata=("License: Apache-2.0\n", "")),
    Mistake("no-readme", "package", metadata=("\nSweeps what nobody wants.\n", "")),
    Mistake("odd-module", "names", entry_point="sweep = {package}.tasks:Sweep", file="tasks"),
    Mistake("other-method", "loading", "def sweep(", "def sweep_all("),
    Mistake("missing-library", "loading", IMPORTS, "import acme_shelf_client\n" + IMPORTS),
    Mistake("syntax-error", "loading", IMPORTS, "def broken(:\n" + IMPORTS),
    Mistake("exits", "loading", IMPORTS, "raise SystemExit(3)\n" + IMPORTS),
    Mistake("no-task", "loading", "class Sweep(cepheid.Task)", "class Sweep"),
    Mistake("default-below-min", "loading", "default=30, min=1", "default=0, min=1"),
    Mistake(
        "no-docstring", "docstring",
        '    """Stop guests that nobody wants, and delete their dumps."""\n', "",
    ),
    Mistake("third-person", "docstring", '"""Stop guests', '"""Stops guests'),
    Mistake("no-full-stop", "docstring", 'their dumps."""', 'their dumps"""'),
    Mistake("two-lines", "docstring", "nobody wants, and", "nobody wants,\n    and"),
    Mistake("help-is-a-word", "options", "The directory of the dumps.", "Dumps"),
    Mistake("no-unit", "options", 'cfg.StrOpt("dumps"',
            'cfg.IntOpt("reach", default=3, help="How far it may go."), cfg.StrOpt("dumps"'),
    Mistake("takes-spacing", "options", 'cfg.StrOpt("dumps"', 'cfg.StrOpt("spacing", default="", '
            'help="How often it is swept."), cfg.StrOpt("dumps"'),
    Mistake(
        "takes-anothers-name", "options", "default=30, min=1,",
        'default=30, min=1, deprecated_opts=[cfg.DeprecatedOpt("instance_build_timeout",'
        ' group="DEFAULT")],',
    ),
    Mistake("open-secret", "options", "secret=True, ", ""),
    Mistake("imports-sqlalchemy", "heavy imports", IMPORTS, "import sqlalchemy\n" + IMPORTS),
    Mistake("imports-libvirt-late", "heavy imports", BEGIN, "        import libvirt\n" + BEGIN),
    Mistake("thread-at-import", "import",
            new="import threading, time\n"
            "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"),
    Mistake("signal-at-import", "import",
            new="import signal\nsignal.signal(signal.SIGHUP, print)\n"),
    Mistake("log-at-import", "import", new="logging.basicConfig(level=logging.DEBUG)\n"),
    Mistake("patch-at-import", "import",
            new="import socket\nsocket.create_connection = lambda *a, **k: None\n"),
    Mistake("file-at-import", "import", new="Path('/tmp/acme-was-here').write_text('x')\n"),
    Mistake("print-at-import", "import", new="print('acme sweeps')\n"),
    Mistake("chdir-at-import", "import", new="os.chdir('/')\n"),
    Mistake("no-super", "constructor", "        super().__init__(agent)\n", ""),
    Mistake("asks-at-start", "constructor",
            'self.hypervisor = agent.driver("hypervisor")\n',
            'self.hypervisor = agent.driver("hypervisor")\n'
            "        self.known = self.hypervisor.domains()\n"),
    Mistake("connects-at-start", "constructor", "        super().__init__(agent)\n",
            "        super().__init__(agent)\n        import socket\n"
            "        socket.socket().connect(('127.0.0.1', 9))\n"),
    Mistake("every-second", "spacing", "spacing=600", "spacing=1"),
    Mistake("sleeps", "sleep", BEGIN, "        import time\n        time.sleep(5)\n" + BEGIN),
    Mistake("waits", "quick", BEGIN,
            "        import threading\n        threading.Event().wait(3)\n" + BEGIN),
    Mistake("own-clock", "clock", "        now = self.agent.clock.utcnow().timestamp()\n",
            "        from datetime import datetime\n        now = datetime.now().timestamp()\n"),
    Mistake("catches-all", "errors", "        domains = self.hypervisor.domains()\n",
            "        try:\n            domains = self.hypervisor.domains()\n"
            "        except BaseException:\n            return\n"),
    Mistake("global-conf", "configuration", "self.conf.max_age_days",
            "(cfg.CONF.max_age_days if cfg.CONF else 30)"),
    Mistake("reads-once", "reload", "        super().__init__(agent)\n",
            "        super().__init__(agent)\n        self.days = self.conf.max_age_days\n",
            also=("> self.conf.max_age_days *", "> self.days *")),
    Mistake("own-run-now", "shape", "    def stop(",
            "    def run_now(self, trigger, dry_run=None, force=False):\n"
            "        return self.sweep(None)\n\n    def stop("),
    Mistake("past-the-door", "changes", LOOP,
            "        for uuid in domains:\n            self.hypervisor.power_off(uuid)\n" + LOOP),
    Mistake("no-reason", "changes", '            reason="it is to be deleted",\n', ""),
    Mistake("deletes-in-a-dry-run", "dry run",
            'context.change("delete", str(path), reason="it is old", do=path.unlink)',
            "path.unlink()"),
    Mistake("program-in-a-dry-run", "dry run", BEGIN,
            "        import subprocess\n        subprocess.run(['true'])\n" + BEGIN),
    Mistake("one-for-many", "max_changes",
            'context.change("delete", str(path), reason="it is old", do=path.unlink)',
            'context.change("delete", self.conf.dumps, reason="old", '
            "do=lambda: [one.unlink() for one in Path(self.conf.dumps).iterdir()])"),
    Mistake("leaves-a-thread", "leftovers", BEGIN,
            "        import threading\n"
            "        threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
            + BEGIN),
    Mistake("swallows-time-outs", "time-outs", "        domains = self.hypervisor.domains()\n",
            "        try:\n            domains = self.hypervisor.domains()\n"
            "        except errors.CepheidError:\n            domains = {}\n"),
    Mistake("silence-is-none", "vanishing", BEGIN + ".instances_on_host(self.agent.host)\n",
            "        try:\n            rows = self.database.instances_on_host(self.agent.host)\n"
            "        except errors.CepheidError:\n            rows = []\n"),
    Mistake("missing-is-gone", "half lists", LOOP,
            "        for row in rows:\n            if row.uuid not in domains:\n"
            "                context.change('forget', row.uuid, reason='gone', do=lambda: 0)\n"
            + LOOP),
    Mistake("null-is-no-time", "bad rows", LOOP,
            LOOP + "            age = self.agent.clock.utcnow() - row.created_at\n"),
    Mistake("asks-for-each", "constant cost", LOOP,
            LOOP + "            self.hypervisor.power_state(row.uuid)\n"),
    Mistake("logs-its-secret", "secrets", BEGIN,
            "        LOG.debug('with %s', self.conf.token)\n" + BEGIN),
    Mistake("by-chance", "repeatable", LOOP,
            "        import random as chance\n        rows = rows[: chance.SystemRandom()"
            ".randrange(10**6) % 7]\n        context.count('seen', len(rows))\n" + LOOP),
    Mistake("other-cepheid", "metadata", metadata=("cepheid>=0.1", "cepheid>=99")),
    Mistake("requires-too-little", "requirements", IMPORTS, "import pytest\n" + IMPORTS),
    Mistake("reads-the-environment", "configuration", "self.conf.max_age_days *",
            "int(os.environ.get('ACME_DAYS', '30')) *"),
    Mistake("local-time", "clock", BEGIN,
            "        import datetime\n        datetime.datetime.fromtimestamp(0)\n" + BEGIN),
    Mistake("is-never-awaited", "shape", "    def sweep(", "    async def sweep("),
    Mistake("waits-for-ever", "sleep",
            new="\n\ndef ask():\n    import subprocess\n    subprocess.run(['true'])\n"),
    Mistake("own-pool", "manners", new="\n\ndef pool():\n    import concurrent.futures\n"
            "    return concurrent.futures.ThreadPoolExecutor(8)\n"),
    Mistake("names-no-driver", "constructor", 'drivers = ("database", "hypervisor")',
            'drivers = ("database",)'),
    Mistake("fails-always", "changes", LOOP,
            "        Path(__file__).with_name('policy.json').read_text()\n" + LOOP),
    Mistake("stops-another", "changes", DO,
            "do=lambda: self.hypervisor.power_off(max(self.hypervisor.domains())),"),
    Mistake("says-it-is-done", "time-outs", DO, "do=lambda: self.try_to_stop(row.uuid),",
            also=("    def stop(",
                  "    def try_to_stop(self, uuid):\n        try:\n"
                  "            self.hypervisor.power_off(uuid)\n"
                  "        except errors.CepheidError:\n            LOG.info('later')\n\n"
                  "    def stop(")),
    Mistake("counts-on-its-class", "leftovers", LOOP,
            LOOP + "            self.seen[row.uuid] = self.seen.get(row.uuid, 0) + 1\n",
            also=("    drivers = (", "    seen = {}\n    drivers = (")),
    Mistake("stays-busy", "time-outs", BEGIN,
            "        if getattr(self, 'busy', False):\n            return\n"
            "        self.busy = True\n" + BEGIN,
            also=("do=path.unlink)\n", "do=path.unlink)\n        self.busy = False\n")),
    Mistake("ends-the-process", "sandbox", BEGIN, "        os._exit(3)\n" + BEGIN),
    Mistake("ends-at-import", "sandbox", IMPORTS, "os._exit(0)\n" + IMPORTS),
    Mistake("crashes", "sandbox", BEGIN,
            "        import ctypes\n        ctypes.string_at(0)\n" + BEGIN),
]  # fmt: skip


def install(mistake: Mistake, site: Path) -> str:
    """Write what pip would have installed; return the distribution's name."""
    name, package = f"acme-{mistake.name}", f"acme_{mistake.name.replace('-', '_')}"
    folder = site / package
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / f"{mistake.file}.py").write_text(mistake.source)
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    metadata = (
        METADATA.format(name=name).replace(*mistake.metadata)
        if mistake.metadata[0]
        else (METADATA.format(name=name))
    )
    (info / "METADATA").write_text(metadata)
    point = mistake.entry_point.format(package=package)
    (info / "entry_points.txt").write_text(f"[cepheid.tasks]\n{point}\n")
    return name


@contextmanager
def site(path: Path) -> Iterator[Path]:
    """Let what is installed in a directory be found, here and in processes that are started."""
    path.mkdir(exist_ok=True)
    sys.path.insert(0, str(path))
    importlib.invalidate_caches()
    try:
        yield path
    finally:
        sys.path.remove(str(path))
        importlib.invalidate_caches()
