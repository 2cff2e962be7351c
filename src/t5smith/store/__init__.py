"""The token store: making it from text and a vocabulary, and reading it."""
