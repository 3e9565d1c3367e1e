"""How Alembic runs here: on the connection and in the transaction that ``migrate`` hands down."""

from alembic import context

from portoser.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=context.config.attributes["version_table"],
    compare_server_default=True,
)
context.run_migrations()
