# SPDX-License-Identifier: Apache-2.0
"""The connection: what a URL names, waiting for a locked file, and who says what went wrong."""

import contextlib
import logging
import os
import shutil
import sqlite3
import time

import pytest
import sqlalchemy as sa
from oslo_db.api import wrap_db_retry

from cepheid import errors
from cepheid_plugins.database import engine, transactions
from cepheid_plugins.database.driver import Database
from cepheid_plugins.database.errors import DatabaseError
from cepheid_plugins.database.records import ANY, InstanceUpdate, NewInstance


@pytest.fixture
def database(agent):
    agent.conf.register_opts(Database.options, group="database")
    database = Database(agent)
    yield database
    database.close()


@pytest.mark.parametrize(
    ("named", "used"),
    [
        ("mysql://h/x", "mysql+pymysql"),
        ("mariadb://h/x", "mysql+pymysql"),
        ("mariadb+pymysql://h/x", "mysql+pymysql"),
        ("postgresql://h/x", "postgresql+psycopg2"),
        ("postgresql+psycopg2://h/x", "postgresql+psycopg2"),
        ("sqlite:////x", "sqlite"),
    ],
)
def test_a_url_is_served_by_the_driver_that_comes_with_us(named, used):
    assert engine.parse_url(named).drivername == used


@pytest.mark.parametrize("url", ["mysql+nothing://h/x", "oracle+nothing://h/x", "nothing://h/x"])
def test_a_driver_that_is_not_there_is_named(url):
    with pytest.raises(errors.ConfigError, match="not installed"):
        engine.parse_url(url)


def test_a_writer_waits_for_another_process_once_and_gives_up(database, monkeypatch):
    """Not the time-out of SQLite times the number of tries, which was a quarter of an hour."""
    monkeypatch.setattr(engine, "SQLITE_BUSY_SECONDS", 0.3)
    # Green threads wait between tries instead; two stand for the thirty.
    retry = wrap_db_retry(max_retries=2, retry_interval=0.1, exception_checker=engine.is_locked)
    monkeypatch.setattr(transactions, "_on_green_sqlite", retry(transactions._once))
    database.sync()
    other = sqlite3.connect(database.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(DatabaseError, match="locked"):
        database.update_instances("host1", [InstanceUpdate("x", ANY, ANY, {"progress": 1})])
    assert time.monotonic() - began < 3
    other.close()


def test_what_went_wrong_is_raised_and_not_logged_as_well(database, caplog):
    with open(database.url.database, "wb") as file:
        file.write(b"no database " * 500)
    with caplog.at_level(logging.DEBUG), pytest.raises(DatabaseError, match="not a database"):
        database.check()
    assert [record for record in caplog.records if record.exc_info] == []


def make_backup(database, path):
    """Return a copy of the inventory, without its instances."""
    with (
        contextlib.closing(sqlite3.connect(database.url.database)) as source,
        contextlib.closing(sqlite3.connect(path)) as target,
    ):
        source.backup(target)
        target.execute("DELETE FROM instances")
        target.commit()
    return path


NEW = NewInstance("uuid-1", "guest-1", "host1", "node1", "active", 1, 1, 128, 0)


@pytest.mark.parametrize("restore", [os.replace, shutil.copyfile], ids=["mv", "cp"])
def test_a_backup_that_is_put_in_the_place_of_the_file_is_what_is_read(database, tmp_path, restore):
    """Whatever was being read while the last write ended."""
    database.sync()
    backup = make_backup(database, tmp_path / "copy.sqlite")
    with database._connected().connect() as reader:
        reader.execute(sa.text("SELECT count(*) FROM instances")).one()
        database.create_instances([NEW])
    assert database.instance_uuids_on_host("host1") == ["uuid-1"]
    restore(backup, database.url.database)
    assert database.instance_uuids_on_host("host1") == []
    database.create_instances([NEW])
    with contextlib.closing(sqlite3.connect(database.url.database)) as fresh:
        assert fresh.execute("SELECT uuid FROM instances").fetchall() == [("uuid-1",)]
