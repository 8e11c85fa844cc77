"""More random work: ``pytest tests/isolation -m slow --hypothesis-profile=long``."""

from hypothesis import settings

settings.register_profile("long", max_examples=10_000)
