"""Fixtures of the token store's tests."""

from stores import recipe  # noqa: F401
