"""How long training takes and how much memory: tried before the first step, corrected while it runs."""
