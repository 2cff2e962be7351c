"""The command `t5smith`."""
