"""What a folder holds: its text, the data set that it is, and side files that are not read."""
