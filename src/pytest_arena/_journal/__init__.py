"""What has changed in a database on a server, and how is it taken back?"""

from pytest_arena._journal._rights import lacking, what_would_do
from pytest_arena._journal._server import Left, Look, ServerJournal
from pytest_arena._journal._templates import Unjournaled, check_fit, journaled, remarks

__all__ = [
    "Left",
    "Look",
    "ServerJournal",
    "Unjournaled",
    "check_fit",
    "journaled",
    "lacking",
    "remarks",
    "what_would_do",
]
