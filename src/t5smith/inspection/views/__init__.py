"""What the inspector shows: terminal, page, tables, plot."""
