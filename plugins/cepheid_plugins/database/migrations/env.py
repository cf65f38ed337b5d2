# SPDX-License-Identifier: Apache-2.0
"""Run by alembic: the connection is the caller's, in its transaction."""

from alembic import context

from cepheid_plugins.database import migrate, models

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=models.metadata,
    version_table=migrate.VERSION_TABLE,
)
context.run_migrations()
