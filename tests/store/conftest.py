"""Fixtures of the token store's tests."""

from clusters import recipe_of_tasks  # noqa: F401
from stores import recipe  # noqa: F401
