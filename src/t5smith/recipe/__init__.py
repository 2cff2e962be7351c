"""What a user can say: the settings of a run, bundled recipes, and recipe files."""
