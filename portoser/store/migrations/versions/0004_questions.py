"""Calls that ask: the key that all replicas sign their states with, and which of them were used."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make both tables, and the key."""
    op.create_table(
        "mcp_keys",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_mcp_keys"),
    )
    op.create_table(
        "mcp_spent_nonces",
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("nonce", name="pk_mcp_spent_nonces"),
    )
    op.create_index("ix_mcp_spent_nonces_expires_at", "mcp_spent_nonces", ["expires_at"], unique=False)
    # Two random UUIDs: 244 bits that nobody knows, and no extension needed.
    op.execute(
        """
        INSERT INTO mcp_keys (name, key)
        SELECT 'questions', sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
        """
    )
