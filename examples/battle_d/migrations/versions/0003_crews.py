"""Crews: a dancer may belong to one.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go on to this revision."""
    op.add_column("dancers", sa.Column("crew", sa.String(100), nullable=True))


def downgrade() -> None:
    """Go back to dancers without crews."""
    with op.batch_alter_table("dancers") as dancers:
        dancers.drop_column("crew")
