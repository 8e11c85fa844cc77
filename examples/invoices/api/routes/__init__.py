"""The addresses of the app, one file for each part of it."""

from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.database import get_db

Db = Annotated[AsyncSession, Depends(get_db)]
