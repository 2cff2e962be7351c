"""What everything else stands on: errors, artifacts, locks, progress. Nothing here knows of T5."""
