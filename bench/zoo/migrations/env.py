"""Run the migrations on a given connection, else on the app's database."""

from alembic import context

from bench.zoo.shop import Base, sync_engine


def run(connection):
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


if given := context.config.attributes.get("connection"):
    run(given)
else:
    with sync_engine.connect() as connection:
        run(connection)
