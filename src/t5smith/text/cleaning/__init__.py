"""What is done to documents before they are used: repair, filters."""
