"""What a user can say: the settings of a run, presets, and recipe files."""
