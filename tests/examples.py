"""How many examples hypothesis tries: a quarter by default, all in the profile `thorough` of `make test-all`."""

from typing import Any

from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=100)


def examples(most: int, **more: Any) -> settings:
    """Settings of so many examples at most."""
    thorough = settings.get_current_profile_name() == "thorough"
    return settings(deadline=None, max_examples=most if thorough else max(2, most // 4), **more)
