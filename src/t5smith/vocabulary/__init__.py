"""Vocabularies: training one on text, importing one, encoding text with one, comparing several."""
