"""The tasks of `prepare`: where they run, how they fail, and how far they are."""
