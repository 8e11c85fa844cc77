"""The first tables, and the currencies."""

from alembic import op

from bench.zoo.shop import Base

revision = "1"
down_revision = None


def upgrade():
    Base.metadata.create_all(op.get_bind())
    op.execute("ALTER TABLE items ADD CHECK (amount >= 0)")
    op.execute("CREATE TABLE currencies (code text PRIMARY KEY)")
    op.execute("INSERT INTO currencies VALUES ('EUR'), ('USD')")
