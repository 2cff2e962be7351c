"""The held-out curve of a run: when it is measured, and what it says."""
