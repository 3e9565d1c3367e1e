"""Postgres: the tables, their migrations, the queries, and the embedded server."""
