# SPDX-License-Identifier: Apache-2.0
"""The printed grants."""

import pytest

from cepheid import errors
from cepheid_plugins.database import grants


def test_mariadb_grants_by_table_and_nothing_more():
    lines = grants.statements("mariadb", "nova_cell1", "alembic_version", "agent", "10.0.0.%")
    assert lines[0] == "GRANT SELECT, UPDATE ON `nova_cell1`.`instances` TO 'agent'@'10.0.0.%';"
    assert len(lines) == len(grants.AGENT) + 1
    assert not any("ALL" in line for line in lines)
    # Nova reads soft-deleted system metadata, so what is no more has to go.
    assert [line for line in lines if "DELETE" in line] == [
        "GRANT SELECT, INSERT, UPDATE, DELETE ON `nova_cell1`.`instance_system_metadata`"
        " TO 'agent'@'10.0.0.%';"
    ]


def test_beside_nova_nothing_is_inserted_that_nova_makes():
    lines = grants.statements("mysql", "cell", "alembic_version", "agent", nova=True)
    inserted = {line.split("`")[3] for line in lines if "INSERT" in line}
    assert inserted == {
        "bw_usage_cache",
        "instance_actions",
        "instance_actions_events",
        "instance_faults",
        "instance_system_metadata",
        "volume_usage_cache",
        "task_log",
    }


def test_postgresql_also_needs_the_sequences_of_what_is_inserted():
    lines = grants.statements("postgresql", "cell", "alembic_version", "agent")
    assert 'GRANT USAGE ON SEQUENCE "instance_faults_id_seq" TO "agent";' in lines
    assert 'GRANT SELECT ON "alembic_version" TO "agent";' in lines


def test_adopting_adds_what_it_inserts():
    lines = grants.statements("mysql", "cell", "cepheid_alembic_version", "agent", adopt=True)
    assert "GRANT SELECT, INSERT, UPDATE ON `cell`.`instances` TO 'agent'@'%';" in lines


def test_sqlite_has_no_accounts():
    with pytest.raises(errors.CepheidError, match=r"SQLite has no accounts.* own it"):
        grants.statements("sqlite", "/var/lib/cepheid/x", "alembic_version", "agent")


def test_a_name_that_would_break_out_of_its_quotes_is_refused():
    with pytest.raises(errors.CepheidError, match="cannot stand"):
        grants.statements("mysql", "cell", "alembic_version", "agent'; DROP")
