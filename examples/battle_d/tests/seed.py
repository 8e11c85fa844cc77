"""The rows that every test starts with: somebody of each role."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Role, User


def email_of(role: str) -> str:
    """Give the address of the user who has this role in the tests."""
    return f"{role}@battle-d.example"


async def seed(session: AsyncSession) -> None:
    """Add one user for each role."""
    session.add_all(
        User(email=email_of(role), name=f"The {role.name.title()}", role=role) for role in Role
    )
