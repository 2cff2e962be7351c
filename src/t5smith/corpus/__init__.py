"""Text to token store: reading, tokenising, and the windows that training reads."""
