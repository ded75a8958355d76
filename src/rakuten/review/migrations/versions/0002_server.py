"""What the review desk needs to be served: an index for each order of the queue, and what people see of a product."""

import sqlalchemy as sa
from alembic import op

from rakuten.review.audit import mixed_confidences

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FILTERED = ["source", "predicted", "prdtypecode", "language"]
INDICES: dict[str, list[str | sa.TextClause]] = {
    "teaching": ["state", sa.text("priority DESC"), "id", *FILTERED, "shown_confidence"],
    "confidence": ["state", "shown_confidence", "id", *FILTERED],
    "oldest": ["state", "id", *FILTERED, "shown_confidence"],
    "assigned": ["assigned_to", "state"],
    "assigned_until": ["assigned_until"],
}


def upgrade() -> None:
    # With defaults, which every database adds without copying the table: decisions refer to it.
    for column in (
        sa.Column("is_novel", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("shown_confidence", sa.Double(), nullable=False, server_default="0"),
        sa.Column("shown_top", sa.JSON(), nullable=False, server_default="[]"),
    ):
        op.add_column("review_products", column)
    op.execute("UPDATE review_products SET shown_confidence = confidence, shown_top = top")
    _hide_audit()
    op.drop_index("review_products_order", "review_products")
    for name, columns in INDICES.items():
        op.create_index(f"review_products_{name}", "review_products", columns)
    op.drop_index("ix_review_decisions_product_id", "review_decisions")
    op.drop_index("ix_review_decisions_person", "review_decisions")
    op.create_index("review_decisions_once", "review_decisions", ["product_id", "person", "decided_at"], unique=True)
    op.create_index("review_decisions_person", "review_decisions", ["person", "id"])


def _hide_audit() -> None:
    """Give the products of the audit sample confidences like those of the products that need review."""
    products = sa.table(
        "review_products", sa.column("id"), sa.column("source"), sa.column("is_audit", sa.Boolean()),
        sa.column("top", sa.JSON()), sa.column("shown_top", sa.JSON()), sa.column("shown_confidence"),
    )  # fmt: skip
    connection = op.get_bind()
    audit = connection.execute(sa.select(products.c.id, products.c.top).where(products.c.is_audit)).all()
    others = sa.select(products.c.top).where(~products.c.is_audit, products.c.source == "file").limit(len(audit) + 1)
    unsure = list(connection.scalars(others))
    if not unsure:
        return
    for number, (product_id, top) in enumerate(audit):
        first, second = (unsure[(number + more) % len(unsure)] for more in (0, 1))
        shown = mixed_confidences(top, first, second)
        connection.execute(
            products.update().where(products.c.id == product_id).values(shown_top=shown, shown_confidence=shown[0][1])
        )


def downgrade() -> None:
    op.drop_index("review_decisions_once", "review_decisions")
    op.drop_index("review_decisions_person", "review_decisions")
    op.create_index("ix_review_decisions_product_id", "review_decisions", ["product_id"])
    op.create_index("ix_review_decisions_person", "review_decisions", ["person"])
    for name in INDICES:
        op.drop_index(f"review_products_{name}", "review_products")
    op.create_index("review_products_order", "review_products", ["state", "priority"])
    for name in ("is_novel", "shown_confidence", "shown_top"):
        op.drop_column("review_products", name)
