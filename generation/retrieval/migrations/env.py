"""Alembic's entry: runs migrations in the transaction that opened the store."""

from alembic import context

from generation.retrieval.migrations.running import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
