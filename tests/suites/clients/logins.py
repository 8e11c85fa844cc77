"""How a client of each role logs in."""

import asyncpg

ATTEMPTS = []


async def log_in(client, role):
    ATTEMPTS.append(role)
    if role == "stranger":
        raise LookupError("no such user")
    if role == "outsider":
        await asyncpg.connect(database="postgres", host="db.invalid")
    client.headers["authorization"] = f"Bearer {role}"
    return await client.post("/login" if role == "nobody" else f"/login/{role}")
