# SPDX-License-Identifier: Apache-2.0
"""Checks of a task's source, for what a run in the sandbox may not come across."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from cepheid import loading
from cepheid.testing.conformance.findings import Problem

#: Libraries that only drivers may import: slow to load, blocking, or not installed everywhere.
HEAVY = (
    "alembic", "eventlet", "greenlet", "keystoneauth1", "libvirt", "lxml", "openstack", "oslo_db",
    "oslo_messaging", "pymysql", "psycopg2", "sqlalchemy",
)  # fmt: skip

CLOCKS = {
    "datetime.date.today", "datetime.datetime.now", "datetime.datetime.today",
    "datetime.datetime.utcnow", "time.gmtime", "time.localtime", "time.monotonic", "time.time",
    "time.time_ns", "oslo_utils.timeutils.utcnow",
}  # fmt: skip
CHANCE = {f"random.{name}" for name in ("random", "randint", "choice", "uniform", "shuffle",
                                        "sample", "randrange")}  # fmt: skip
#: What waits for ever where it is given no time-out, as an argument of this name or at this place,
#: counted from 0; None: by its name only.
WAITS: dict[str, tuple[str, int | None]] = {
    "requests.get": ("timeout", None), "requests.head": ("timeout", None),
    "requests.post": ("timeout", None), "requests.put": ("timeout", None),
    "requests.delete": ("timeout", None), "requests.request": ("timeout", None),
    "urllib.request.urlopen": ("timeout", 2), "http.client.HTTPConnection": ("timeout", 2),
    "http.client.HTTPSConnection": ("timeout", None), "smtplib.SMTP": ("timeout", 3),
    "socket.create_connection": ("timeout", 1), "subprocess.call": ("timeout", None),
    "subprocess.check_call": ("timeout", None), "subprocess.check_output": ("timeout", None),
    "subprocess.run": ("timeout", None),
}  # fmt: skip
#: What gives the machine's local time where it is given no time zone.
LOCAL = "datetime.datetime.fromtimestamp"
#: How a variable of the environment is read; as a whole it is for the programs that are started.
ENVIRON = "os.environ"
ENVIRONMENT = (f"{ENVIRON}.get", "os.getenv")
ENDS = {"sys.exit", "os._exit", "os.abort", "exit", "quit"}
OF_THE_AGENT = {
    "os.chdir": "changes the agent's working directory",
    "os.umask": "changes the agent's umask",
    "signal.signal": "takes a signal from the agent",
    "logging.basicConfig": "sets up the agent's log",
    "eventlet.monkey_patch": "patches the agent's threads",
    "threading.Thread": "starts a thread of its own",
    "threading.Timer": "starts a timer of its own",
    "concurrent.futures.ThreadPoolExecutor": "starts threads of its own",
    "concurrent.futures.ProcessPoolExecutor": "starts processes of its own",
    "multiprocessing.Pool": "starts processes of its own",
    "multiprocessing.Process": "starts a process of its own",
    "print": "prints, which nobody sees; an agent's output is its log",
}


def modules_of(task_module: str) -> list[ModuleType]:
    """Return the modules of the task's own package that were imported with it."""
    top = task_module.partition(".")[0]
    if top in ("cepheid", "cepheid_plugins"):
        return [
            module
            for name, module in list(sys.modules.items())
            if name == task_module or name.startswith(task_module + ".")
        ]
    drivers = {
        plugin.entry_point.module
        for plugin in loading.discover_under("cepheid.")
        if plugin.namespace != "cepheid.tasks"
    }
    return [
        module
        for name, module in sorted(sys.modules.items())
        if (name == top or name.startswith(top + ".")) and name not in drivers
    ]


class Source:
    """The source of some modules, parsed.

    :param shorten: makes of a path what an author finds the file by
    """

    def __init__(self, modules: list[ModuleType], shorten: Callable[[str], str]) -> None:
        self._trees: list[tuple[str, ast.Module]] = []
        for module in modules:
            path = getattr(module, "__file__", None)
            if path and path.endswith(".py"):
                # In bytes: a source says its encoding itself.
                self._trees.append((shorten(path), ast.parse(Path(path).read_bytes(), path)))

    def heavy_imports(self) -> Iterator[Problem]:
        """Return where a heavy library is imported, at the top or in a function."""
        for short, tree in self._trees:
            for node in _running(tree):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                for name in names:
                    if name.partition(".")[0] in HEAVY:
                        yield Problem(
                            f"a task's code imports {name}",
                            "leave the library to a driver, and ask for that with "
                            "agent.driver(kind); a task loads with the core alone",
                            f"{short}:{getattr(node, 'lineno', 0)}",
                        )

    def clocks(self) -> Iterator[Problem]:
        """Return where the machine's clock or chance is asked, not the agent's."""
        for where, name, call in self._calls():
            if name == LOCAL and len(call.args) < 2 and not _names(call, "tz"):
                yield Problem(
                    f"it calls {name}() without a time zone, which gives the machine's local time; "
                    "all times here are UTC",
                    "give it datetime.UTC, and compare with self.agent.clock.utcnow()",
                    where,
                )
            elif name in CLOCKS:
                yield Problem(
                    f"it asks {name}(), so that no test can set its time",
                    "ask self.agent.clock: utcnow() for records, monotonic() for durations",
                    where,
                )
            elif name in CHANCE:
                yield Problem(
                    f"it asks {name}(), so that no test can repeat it",
                    "ask self.agent.random",
                    where,
                )

    def sleeps(self) -> Iterator[Problem]:
        """Return where it sleeps by the machine's clock."""
        for where, name, call in self._calls():
            if name in WAITS and not _gives(call, *WAITS[name]):
                yield Problem(
                    f"it calls {name}() without {WAITS[name][0]}=, which may wait for ever",
                    f"give it a {WAITS[name][0]}= of some seconds",
                    where,
                )
            elif name in ("time.sleep", "eventlet.sleep"):
                yield Problem(
                    f"it calls {name}(), which holds its thread and its tests up",
                    "look again in the next run, or call self.agent.clock.sleep()",
                    where,
                )

    def manners(self) -> Iterator[Problem]:
        """Return where it does to the whole agent what concerns it alone."""
        for where, name, _ in self._calls():
            if name in ENDS:
                yield Problem(
                    f"it calls {name}(), which is to end the agent", "raise an error instead", where
                )
            elif name in OF_THE_AGENT:
                yield Problem(f"it {OF_THE_AGENT[name]}", "leave that to the agent", where)

    def global_conf(self) -> Iterator[Problem]:
        """Return where it is configured otherwise than by options: the agent fills no cfg.CONF."""
        for short, tree in self._trees:
            known = _aliases(tree)
            for node in ast.walk(tree):
                if not isinstance(node, ast.Attribute | ast.Name | ast.Subscript):
                    continue
                is_item = isinstance(node, ast.Subscript) and _name(node.value, known) == ENVIRON
                if is_item or _name(node, known) in ENVIRONMENT:
                    yield Problem(
                        "it reads the environment, which the agent's unit does not set",
                        "declare an option, and read self.conf in the decorated method",
                        f"{short}:{node.lineno}",
                    )
                if isinstance(node, ast.Attribute) and _name(node, known) == "oslo_config.cfg.CONF":
                    yield Problem(
                        "it uses cfg.CONF, which the agent does not fill, and no reload changes",
                        "read self.conf in the decorated method",
                        f"{short}:{node.lineno}",
                    )

    def catches(self) -> Iterator[Problem]:
        """Return where every error is caught, those of the runner's concern too."""
        for short, tree in self._trees:
            for node in ast.walk(tree):
                if not isinstance(node, ast.ExceptHandler):
                    continue
                names = (
                    {one for one in ast.walk(node.type) if isinstance(one, ast.Name)}
                    if node.type
                    else set()
                )
                caught = {one.id for one in names}
                if any(isinstance(one, ast.Raise) for one in ast.walk(node)):
                    continue
                where = f"{short}:{node.lineno}"
                if node.type is None or caught & {"BaseException", "SystemExit"}:
                    yield Problem(
                        "it catches everything, the end of the agent included",
                        "catch the errors that you can name",
                        where,
                    )
                elif "Exception" in caught:
                    yield Problem(
                        "it catches every error and goes on, so that a run that failed looks well",
                        "catch the errors that you can name; context.skip() or raise for the rest",
                        where,
                    )

    def imports(self) -> dict[str, str]:
        """Return where each module of another package is imported first, by the package's name."""
        found: dict[str, str] = {}
        for short, tree in self._trees:
            for node in _running(tree):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    names = [node.module]
                for name in names:
                    line = getattr(node, "lineno", 0)
                    found.setdefault(name.partition(".")[0], f"{short}:{line}")
        return found

    def _calls(self) -> Iterator[tuple[str, str, ast.Call]]:
        for short, tree in self._trees:
            known = _aliases(tree)
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and (name := _name(node.func, known)):
                    yield f"{short}:{node.lineno}", name, node


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Return all that may be carried out: not what is for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield from (other, *_running(other))
            continue
        yield node
        yield from _running(node)


def _names(call: ast.Call, argument: str) -> bool:
    """Tell whether a call names an argument, or may: by ``**``."""
    return any(keyword.arg in (argument, None) for keyword in call.keywords)


def _gives(call: ast.Call, argument: str, place: int | None) -> bool:
    """Tell whether a call gives an argument, by its name or at its place, or may: by ``*``."""
    if _names(call, argument) or place is None:
        return _names(call, argument)
    return len(call.args) > place or any(isinstance(one, ast.Starred) for one in call.args)


def _aliases(tree: ast.Module) -> dict[str, str]:
    """Return what each imported name stands for."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                known[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return known


def _name(node: ast.AST, known: dict[str, str]) -> str:
    """Return the full name of what an expression names; nothing where it names nothing imported."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id if node.id in ("print", "exit", "quit") else "")
    if isinstance(node, ast.Attribute):
        base = _name(node.value, known)
        return f"{base}.{node.attr}" if base else ""
    return ""
