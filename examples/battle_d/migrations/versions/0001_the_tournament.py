"""The tournament: users, dancers, categories, performers, battles.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go on to this revision."""
    _create_people()
    _create_tournaments()
    _create_battles()


def downgrade() -> None:
    """Go back to the empty database."""
    for table in (
        "battle_entries",
        "battles",
        "performers",
        "categories",
        "tournaments",
        "dancers",
        "users",
    ):
        op.drop_table(table)


def _words(name: str, *words: str) -> sa.Enum:
    return sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=20)


def _phase() -> sa.Enum:
    phases = ("REGISTRATION", "PRESELECTION", "POOLS", "FINALS", "COMPLETED")
    return _words("phase", *phases)


def _created_at() -> sa.Column[sa.DateTime]:
    now = sa.func.now()
    return sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False)


def _create_people() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("role", _words("role", "ADMIN", "STAFF", "MC", "JUDGE"), nullable=False),
        _created_at(),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
    )
    op.create_table(
        "dancers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("first_name", sa.String(100), nullable=False),
        sa.Column("last_name", sa.String(100), nullable=False),
        sa.Column("blaze", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dancers"),
        sa.UniqueConstraint("email", name="uq_dancers_email"),
    )
    op.create_index("ix_dancers_blaze", "dancers", ["blaze"])


def _create_tournaments() -> None:
    op.create_table(
        "tournaments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("phase", _phase(), nullable=False),
        _created_at(),
        sa.PrimaryKeyConstraint("id", name="pk_tournaments"),
    )
    op.create_table(
        "categories",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tournament_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("places", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_categories"),
        sa.UniqueConstraint("tournament_id", "name", name="uq_categories_tournament_id_name"),
        sa.CheckConstraint("places >= 2", name=op.f("ck_categories_places")),
        sa.ForeignKeyConstraint(
            ["tournament_id"],
            ["tournaments.id"],
            name="fk_categories_tournament_id",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "performers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("category_id", sa.Integer(), nullable=False),
        sa.Column("dancer_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_performers"),
        sa.UniqueConstraint("category_id", "dancer_id", name="uq_performers_category_id_dancer_id"),
        sa.ForeignKeyConstraint(
            ["category_id"],
            ["categories.id"],
            name="fk_performers_category_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["dancer_id"], ["dancers.id"], name="fk_performers_dancer_id"),
    )
    op.create_index("ix_performers_dancer_id", "performers", ["dancer_id"])


def _create_battles() -> None:
    status = _words("battlestatus", "PENDING", "ACTIVE", "COMPLETED")
    op.create_table(
        "battles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tournament_id", sa.Integer(), nullable=False),
        sa.Column("category_id", sa.Integer(), nullable=False),
        sa.Column("phase", _phase(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("status", status, nullable=False),
        sa.Column("outcome", _words("outcome", "SCORED", "WON", "DRAWN"), nullable=True),
        sa.Column("winner_id", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_battles"),
        sa.CheckConstraint(
            "(status = 'COMPLETED') = (outcome IS NOT NULL)", name=op.f("ck_battles_ended")
        ),
        sa.CheckConstraint(
            "(winner_id IS NOT NULL) = (outcome IS NOT NULL AND outcome = 'WON')",
            name=op.f("ck_battles_won"),
        ),
        sa.UniqueConstraint("tournament_id", "position", name="uq_battles_tournament_id_position"),
        sa.ForeignKeyConstraint(
            ["tournament_id"],
            ["tournaments.id"],
            name="fk_battles_tournament_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["category_id"], ["categories.id"], name="fk_battles_category_id"),
        sa.ForeignKeyConstraint(["winner_id"], ["performers.id"], name="fk_battles_winner_id"),
    )
    op.create_index("ix_battles_category_id", "battles", ["category_id"])
    op.create_table(
        "battle_entries",
        sa.Column("battle_id", sa.Integer(), nullable=False),
        sa.Column("performer_id", sa.Integer(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("score", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("battle_id", "performer_id", name="pk_battle_entries"),
        sa.UniqueConstraint("battle_id", "slot", name="uq_battle_entries_battle_id_slot"),
        sa.CheckConstraint("score BETWEEN 0 AND 100", name=op.f("ck_battle_entries_score")),
        sa.ForeignKeyConstraint(
            ["battle_id"],
            ["battles.id"],
            name="fk_battle_entries_battle_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["performer_id"], ["performers.id"], name="fk_battle_entries_performer_id"
        ),
    )
