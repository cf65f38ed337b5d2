# SPDX-License-Identifier: Apache-2.0
"""What holds for the whole repository: names agree, lists are complete, tasks stay light."""

import configparser
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    "cepheid": ROOT / "core" / "cepheid",
    "cepheid_plugins": ROOT / "plugins/cepheid_plugins",
}
NAMESPACES = (
    "cepheid.cli",
    "cepheid.database",
    "cepheid.hypervisor",
    "cepheid.observers",
    "cepheid.tasks",
    "oslo.config.opts",
)

#: Libraries that an installation of the core alone does not have.
HEAVY = ("alembic", "defusedxml", "libvirt", "oslo_db", "oslo_messaging", "pymysql", "sqlalchemy")


def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def listed(section, option):
    return [line for line in setup_cfg()[section][option].splitlines() if line.strip()]


def ours(namespace):
    return [
        point
        for point in entry_points(group=namespace)
        if point.dist is not None and point.dist.name == "cepheid"
    ]


TASKS = [point.name for point in ours("cepheid.tasks")]


def test_there_are_tasks():
    assert TASKS


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_entry_point_loads(namespace):
    points = ours(namespace)
    assert points
    for point in points:
        point.load()


@pytest.mark.parametrize("name", TASKS)
def test_a_tasks_names_agree(name):
    (point,) = [point for point in ours("cepheid.tasks") if point.name == name]
    assert point.module == f"cepheid_plugins.tasks.{name}"
    assert point.load().task_name() == name
    assert (ROOT / "tests" / "plugins" / "tasks" / f"test_{name}.py").exists()
    assert (ROOT / "doc" / "source" / "tasks" / f"{name}.rst").exists()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_a_first_line_for_the_list(name):
    (point,) = [point for point in ours("cepheid.tasks") if point.name == name]
    first = point.load().__doc__.splitlines()[0]
    assert first.endswith(".")


def test_every_task_module_is_an_entry_point():
    modules = {path.stem for path in (SOURCES["cepheid_plugins"] / "tasks").glob("*.py")}
    assert modules - {"__init__"} == set(TASKS)


def test_the_package_list_equals_the_tree():
    packages = set()
    for name, path in SOURCES.items():
        for init in path.rglob("__init__.py"):
            parts = init.parent.relative_to(path).parts
            packages.add(".".join((name, *parts)))
    assert set(listed("options", "packages")) == packages


@pytest.mark.parametrize("name", TASKS)
def test_a_task_and_its_options_need_the_core_alone(name):
    blocked = "\n".join(f"sys.modules[{library!r}] = None" for library in HEAVY)
    script = (
        f"import sys\n{blocked}\n"
        "from importlib.metadata import entry_points\n"
        f"(point,) = [p for p in entry_points(group='cepheid.tasks') if p.name == {name!r}]\n"
        "print(*(option.name for option in point.load().all_options()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "spacing" in done.stdout.split()


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("core", "plugins", "tests", "examples")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_source_file_names_its_licence_and_fits(path):
    lines = path.read_text().splitlines()
    assert lines[0] == "# SPDX-License-Identifier: Apache-2.0"
    relative = path.relative_to(ROOT).as_posix()
    if "/tasks/" in relative and relative.startswith("plugins"):
        assert len(lines) <= 300


def test_the_sample_says_nothing_of_the_machine_it_was_made_on():
    import socket

    text = (ROOT / "etc" / "cepheid" / "cepheid.conf.sample").read_text()
    assert f"host = {socket.gethostname()}\n" not in text
    assert str(ROOT) not in text
