"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "review_products",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("productid", sa.BigInteger()),
        sa.Column("imageid", sa.BigInteger()),
        sa.Column("designation", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("image", sa.String()),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("prdtypecode", sa.Integer()),
        sa.Column("predicted", sa.Integer(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("top", sa.JSON(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("is_audit", sa.Boolean(), nullable=False),
        sa.Column("group", sa.String(), nullable=False),
        sa.Column("priority", sa.Double(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("assigned_to", sa.String()),
        sa.Column("assigned_until", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("source", "key"),
    )
    op.create_index("review_products_order", "review_products", ["state", "priority"])
    op.create_table(
        "review_decisions",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("product_id", sa.Integer(), sa.ForeignKey("review_products.id"), nullable=False, index=True),
        sa.Column("person", sa.String(), nullable=False, index=True),
        sa.Column("answer", sa.String(), nullable=False),
        sa.Column("prdtypecode", sa.Integer()),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Double()),
        sa.Column("predicted", sa.Integer(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
    )


def downgrade() -> None:
    for table in ("review_decisions", "review_products"):
        op.drop_table(table)
