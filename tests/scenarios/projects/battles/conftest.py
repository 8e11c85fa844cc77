"""pytest compiles anyio anew, as a plugin."""

import pytest

pytest.register_assert_rewrite("anyio._backends._asyncio")
