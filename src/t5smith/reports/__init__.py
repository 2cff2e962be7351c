"""The pages and summaries of a run."""
