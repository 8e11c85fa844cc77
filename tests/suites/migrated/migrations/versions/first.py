import team_app
from alembic import op

revision = "1"
down_revision = None


def upgrade():
    team_app.Base.metadata.create_all(op.get_bind())
    op.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC")  # a test may not send it
