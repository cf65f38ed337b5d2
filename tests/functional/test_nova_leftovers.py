# SPDX-License-Identifier: Apache-2.0
"""What Nova has deleted and left: rows by Nova's own objects, and what those read afterwards."""

import datetime
import itertools

import pytest
import sqlalchemy as sa

from cepheid_plugins.compute import opts as compute_opts
from cepheid_plugins.compute.deletion import DeletionOperations
from cepheid_plugins.compute.leftovers import Leftovers
from cepheid_plugins.database import grants, models
from cepheid_plugins.database.driver import Database
from cepheid_plugins.tasks.cleanup_incomplete_migrations import CleanupIncompleteMigrations
from cepheid_plugins.tasks.run_pending_deletes import RunPendingDeletes
from tests.fake_agent import FakeAgent, FakeClock
from tests.fakes import FakeHypervisor
from tests.functional import servers
from tests.functional.inventories import Used
from tests.functional.nova_cell import NovaCell

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

DELETED = {"vm_state": "deleted", "power_state": 0, "destroyed": True}

MOVED = {"source_compute": "host1", "dest_compute": "host2", "migration_type": "migration",
         "status": "error"}  # fmt: skip


#: A database and its account for each test, on servers that all of them share.
NUMBERS = itertools.count(1)


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def cell(request, server, tmp_path):
    """A cell database that Nova has made."""
    path = tmp_path / "cell"
    path.mkdir()
    if request.param == "sqlite":
        return NovaCell(path, sa.make_url(f"sqlite:///{path}/cell.sqlite"))
    return NovaCell(path, servers.new_database(server(request.param), f"cell{next(NUMBERS)}"))


@pytest.fixture
def engine(cell):
    """What Nova does is done at the real time."""
    engine = sa.create_engine(cell.url, poolclass=sa.NullPool)
    yield engine
    engine.dispose()


class Host:
    """An agent in Nova's cell, with an account that may do what the printed grants say.

    :param uuids: of the instances, by name
    """

    def __init__(self, path, url, uuids):
        (path / "instances").mkdir(parents=True)
        self.path, self.uuids = path, uuids
        self.hypervisor = FakeHypervisor()
        # Of the databases, some keep whole seconds.
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        self.agent = FakeAgent(
            path,
            {"hypervisor": self.hypervisor},
            clock=FakeClock(now + datetime.timedelta(minutes=5)),
        )
        self.agent.conf.register_opts(Database.options, group="database")
        self.agent.conf.register_opts(compute_opts.OPTIONS, group="compute")
        self.agent.set("database", connection=least_account(url))
        self.database = Database(self.agent)
        self.agent.drivers.use("database", self.database)
        self.used = Used(self.database)

    def fill(self, *names):
        """Leave directories here: the name of an instance, with a suffix or without."""
        for name in names:
            instance, _, suffix = name.partition("_")
            directory = self.path / "instances" / (self.uuids[instance] + (suffix and f"_{suffix}"))
            directory.mkdir()
            (directory / "disk").write_text("disk")

    def left(self):
        names = {uuid: name for name, uuid in self.uuids.items()}
        found = (path.name for path in (self.path / "instances").iterdir())
        return sorted(names[name[:36]] + name[36:] for name in found)

    def run(self, factory):
        task = self.agent.build(factory)
        (self.path / "proc").mkdir(exist_ok=True)
        task.leftovers = Leftovers(self.agent, str(self.path / "proc"), str(self.path / "sys"))
        names = {uuid: name for name, uuid in self.uuids.items()}
        run = self.agent.run(task)
        assert not run.error
        return sorted((c.kind, names[c.target], c.outcome) for c in run.changes)

    def close(self):
        # What was granted is all that was needed.
        allowed = {table: set(words) for table, words in grants.AGENT.items()}
        for table, words in grants.NOVA_AGENT.items():
            allowed.setdefault(table, set()).update(words)
        for table, words in self.used.privileges.items():
            if table in models.metadata.tables:
                assert words <= allowed[table], table
        self.agent.close()


def least_account(url):
    kind = url.get_backend_name()
    if kind != "sqlite":
        name = f"least_{url.database}"
        printed = grants.statements(kind, url.database, "alembic_version", name, nova=True)
        url = servers.new_account(url, name, printed)
    return url.render_as_string(hide_password=False)


def deleted_earlier(engine, uuid):
    """Let a deletion be an hour ago."""
    then = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(hours=1)
    with engine.begin() as connection:
        table = models.instances
        connection.execute(sa.update(table).where(table.c.uuid == uuid).values(deleted_at=then))


def test_what_nova_deleted_is_removed_and_novas_objects_say_so(tmp_path, cell, engine):
    uuids = cell.write(
        [
            {"display_name": "alive", "vm_state": "active"},
            {"display_name": "soft-deleted", "vm_state": "soft-delete"},
            {"display_name": "failed", **DELETED, "system_metadata": {"clean_attempts": "1"}},
            # The API deletes by itself what is on a host that is down.
            {"display_name": "local", **DELETED},
            {"display_name": "gone", **DELETED, "system_metadata": {"clean_attempts": "1"}},
            {"display_name": "given-up", **DELETED, "system_metadata": {"clean_attempts": "4"}},
            {"display_name": "elsewhere", **DELETED, "host": "host2"},
            {"display_name": "hidden", **DELETED, "hidden": True},
            {"display_name": "moving", **DELETED, "migration": {**MOVED, "status": "running"}},
            {"display_name": "running", **DELETED},
        ]
    )
    deleted_earlier(engine, uuids["given-up"])
    cell.retry([uuids["given-up"]])
    host = Host(tmp_path / "host", cell.url, uuids)
    host.fill("alive", "soft-deleted", "failed", "failed_resize", "local", "local_del", "given-up",
              "elsewhere", "hidden", "moving", "running")  # fmt: skip
    host.hypervisor.states[uuids["running"]] = 1
    host.hypervisor.names[uuids["running"]] = "running"
    before = cell.read()
    assert before["given-up"]["system_metadata"]["clean_attempts"] == "5"

    assert host.run(RunPendingDeletes) == [
        ("cleaned", "gone", "done"),
        ("delete_files", "failed", "done"),
        ("delete_files", "local", "done"),
        # Its migration was deleted with it, and nobody holds its files.
        ("delete_files", "moving", "done"),
    ]
    assert host.left() == ["alive", "elsewhere", "given-up", "hidden", "running", "soft-deleted"]
    after = cell.read()  # without those that are hidden
    assert {name: row["cleaned"] for name, row in after.items()} == {
        "alive": False, "soft-deleted": False, "failed": True, "local": True, "gone": True,
        "given-up": False, "elsewhere": False, "moving": True, "running": False,
    }  # fmt: skip
    attempts = {name: row["system_metadata"].get("clean_attempts") for name, row in after.items()}
    assert attempts == {
        "alive": None, "soft-deleted": None, "failed": "2", "local": "1", "gone": "1",
        "given-up": "5", "elsewhere": None, "moving": "1", "running": None,
    }  # fmt: skip
    # Nothing else has changed for Nova.
    for rows in (before, after):
        for row in rows.values():
            row.pop("cleaned")
            row["system_metadata"].pop("clean_attempts", None)
    assert before == after
    assert host.run(RunPendingDeletes) == []
    host.close()


def test_d7_what_nova_calls_clean_since_an_earlier_life_is_removed(tmp_path, cell):
    earlier = {"vm_state": "active", "system_metadata": {"clean_attempts": "6"}}
    uuids = cell.write([{"display_name": "alive"}, {"display_name": "came-back", **earlier}])
    cell.destroy([uuids["came-back"]])
    row = cell.read()["came-back"]
    assert (row["cleaned"], row["system_metadata"]["clean_attempts"]) == (True, "7")
    host = Host(tmp_path / "host", cell.url, uuids)
    host.fill("came-back")
    assert host.run(RunPendingDeletes) == [("delete_files", "came-back", "done")]
    row = cell.read()["came-back"]
    assert (row["cleaned"], row["system_metadata"]["clean_attempts"]) == (True, "2")
    host.close()


def test_d17_migrations_that_nova_deleted_with_their_instances_are_found(tmp_path, cell, engine):
    there = {"host": "host2"}
    uuids = cell.write(
        [
            {"display_name": "alive"},
            {"display_name": "source", **DELETED, **there, "migration": MOVED},
            {
                "display_name": "destination",
                **DELETED,
                **there,
                "migration": {
                    **MOVED,
                    "source_compute": "host2",
                    "dest_compute": "host1",
                    "migration_type": "live-migration",
                },
            },
            {
                "display_name": "rolled-back",
                **DELETED,
                **there,
                "migration": {**MOVED, "status": "failed"},
            },
            {"display_name": "nothing-left", **DELETED, **there, "migration": MOVED},
            {"display_name": "own", **DELETED, "migration": MOVED},
            {"display_name": "lives", **there, "vm_state": "error", "migration": MOVED},
            {
                "display_name": "other-cell",
                **DELETED,
                **there,
                "migration": {**MOVED, "cross_cell_move": True},
            },
        ]
    )
    with engine.connect() as connection:
        table = models.migrations
        of_source = connection.execute(
            sa.select(table).where(table.c.instance_uuid == uuids["source"])
        ).one()
        assert of_source.deleted == of_source.id
    host = Host(tmp_path / "host", cell.url, uuids)
    host.fill("source", "source_resize", "destination", "rolled-back", "own", "lives_resize",
              "other-cell")  # fmt: skip
    before = cell.read()
    assert host.run(CleanupIncompleteMigrations) == [
        ("delete_files", "destination", "done"),
        ("delete_files", "rolled-back", "done"),
        ("delete_files", "source", "done"),
        ("migration_status", "destination", "done"),
        ("migration_status", "nothing-left", "done"),
        ("migration_status", "source", "done"),
    ]
    assert host.left() == ["lives_resize", "other-cell", "own"]
    after = cell.read()
    assert {name: row.pop("migrations") for name, row in after.items() if row["migrations"]} == {
        "source": ["failed"], "destination": ["failed"], "rolled-back": ["failed"],
        "nothing-left": ["failed"], "own": ["error"], "lives": ["error"], "other-cell": ["error"],
    }  # fmt: skip
    for row in before.values():
        del row["migrations"]
    after["alive"].pop("migrations", None)
    assert before == after
    assert host.run(CleanupIncompleteMigrations) == []
    host.close()


def test_a_deletion_of_ours_that_failed_is_tried_again_and_nova_reads_both_attempts(tmp_path, cell):
    uuids = cell.write([{"display_name": "alive"}, {"display_name": "ours", "vm_state": "active"}])
    host = Host(tmp_path / "host", cell.url, uuids)
    host.fill("ours")
    directory = host.path / "instances" / uuids["ours"]
    directory.rename(host.path / "aside")
    directory.symlink_to(host.path)
    (row,) = host.database.instances_by_uuid([uuids["ours"]])
    assert DeletionOperations(host.agent).delete([row], "req-1") == {row.uuid: None}
    found = cell.read()["ours"]
    assert (found["deleted"], found["cleaned"]) == (True, False)
    assert found["system_metadata"]["clean_attempts"] == "1"
    directory.unlink()
    (host.path / "aside").rename(directory)
    host.agent.clock.sleep(300)
    assert host.run(RunPendingDeletes) == [("delete_files", "ours", "done")]
    found = cell.read()["ours"]
    assert found["cleaned"] is True
    assert found["system_metadata"]["clean_attempts"] == "2"
    host.close()
