"""Held-out figures of a trained model."""
