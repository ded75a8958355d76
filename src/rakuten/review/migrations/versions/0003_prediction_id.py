"""The prediction of a product from live traffic, so that a decision is the label of a row of the prediction log."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("review_products", sa.Column("prediction_id", sa.String()))


def downgrade() -> None:
    with op.batch_alter_table("review_products") as table:
        table.drop_column("prediction_id")
