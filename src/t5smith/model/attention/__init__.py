"""Attention: the layer, and one module for each backend."""
