"""Weights and tokenizers of other projects, read and written."""
