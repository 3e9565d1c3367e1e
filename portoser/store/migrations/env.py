"""How Alembic runs here: on the connection and in the transaction that ``migrate`` hands down, or as text."""

from alembic import context

if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # which doubles no %
        version_table=context.config.attributes["version_table"],
    )
else:
    context.configure(
        connection=context.config.attributes["connection"],
        version_table=context.config.attributes["version_table"],
    )
context.run_migrations()
