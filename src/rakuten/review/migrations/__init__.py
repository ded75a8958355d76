"""Migrations of the review desk's tables, run by Alembic when the database is opened."""
