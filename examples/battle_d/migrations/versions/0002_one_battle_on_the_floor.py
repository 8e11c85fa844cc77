"""One battle on the floor: the database itself allows no second active one.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go on to this revision."""
    op.create_index(
        "uq_battles_one_active",
        "battles",
        ["tournament_id"],
        unique=True,
        sqlite_where=sa.text("status = 'ACTIVE'"),
        postgresql_where=sa.text("status = 'ACTIVE'"),
    )


def downgrade() -> None:
    """Go back to the rule that only the app knew."""
    op.drop_index("uq_battles_one_active", "battles")
