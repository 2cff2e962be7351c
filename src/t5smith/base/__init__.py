"""The base of all other packages: errors, artifacts, locks, progress. Nothing here is specific to T5."""
