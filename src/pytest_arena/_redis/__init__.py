"""Redis beside the database: clients of redis-py use a private server of this process.

Facts about redis-py 5 to 8:

- All clients connect by ``Connection._connect``. A pool connects again what is disconnected.
- A connection of redis.asyncio belongs to the event loop in which it was opened.
- ``INFO persistence`` has ``rdb_changes_since_last_save``, which counts the writes of a server that
  never saves.
"""
