"""What a call used of its powers, in its entry of the audit log. Entries of before have nothing there."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("mcp_audit_logs", sa.Column("powers", JSONB(), nullable=True))
