"""To and from other formats."""
