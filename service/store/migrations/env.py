"""Alembic's entry: it runs the versions on the connection, and in the transaction, that store/schema.py holds."""  # noqa: INP001 - run as a script

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
