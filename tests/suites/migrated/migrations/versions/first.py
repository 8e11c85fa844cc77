import team_app
from alembic import op

revision = "1"
down_revision = None


def upgrade():
    team_app.Base.metadata.create_all(op.get_bind())
