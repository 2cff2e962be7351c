"""Fixtures of readers: those of the token store, which is what most text is read for."""

from stores import recipe  # noqa: F401
