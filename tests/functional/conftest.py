# SPDX-License-Identifier: Apache-2.0
"""Real servers, one of each for all tests that want it."""

import pytest
import sqlalchemy as sa

from tests.functional import servers
from tests.functional.inventories import open_database
from tests.functional.libvirtd import PROGRAMS, Libvirtd
from tests.functional.nova_cell import NovaCell
from tests.functional.privileged_libvirtd import PrivilegedLibvirtd
from tests.functional.processes import require

KINDS = ("sqlite", "mariadb", "postgresql")


@pytest.fixture(scope="module")
def libvirtd():
    """A private libvirtd without guests."""
    require(*PROGRAMS)
    with Libvirtd() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def privileged_libvirtd():
    """A privileged libvirtd apart from the machine, with a bridge."""
    require(*PROGRAMS)
    with PrivilegedLibvirtd() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def server():
    """Start a server when it is first asked for; give its URL."""
    running = {}
    contexts = []

    def server(kind):
        if kind not in running:
            context = getattr(servers, kind)()
            running[kind] = context.__enter__()
            contexts.append(context)
        return running[kind]

    yield server
    for context in contexts:
        context.__exit__(None, None, None)


@pytest.fixture(params=KINDS)
def url(request, server, tmp_path):
    """An empty database of each kind."""
    if request.param == "sqlite":
        return sa.make_url(f"sqlite:///{tmp_path}/inventory.sqlite")
    return servers.new_database(server(request.param), "cepheid_test")


@pytest.fixture
def database(tmp_path, url):
    """The inventory in it."""
    agent, database = open_database(tmp_path, url)
    database.sync()
    yield database
    database.close()
    agent.close()


@pytest.fixture
def engine(url):
    """An engine of the test's own."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module", params=KINDS)
def cell(request, tmp_path_factory):
    """A cell database that Nova has made; each test has hosts of its own in it."""
    path = tmp_path_factory.mktemp("cell")
    if request.param == "sqlite":
        yield NovaCell(path, sa.make_url(f"sqlite:///{path}/cell.sqlite"))
        return
    with getattr(servers, request.param)() as server:
        yield NovaCell(path, servers.new_database(server, "nova_cell"))
