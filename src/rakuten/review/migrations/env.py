"""What Alembic runs: the migrations, on the connection that `database.open_database` gives."""

from alembic import context

from rakuten.review.tables import Base

connection = context.config.attributes["connection"]
# Only the desk's own tables: a database may be shared with MLflow, which has its own alembic_version.
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    version_table="review_alembic_version",
    include_name=lambda name, kind, _: kind != "table" or name in Base.metadata.tables,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
