"""Text to vocabulary: training a Unigram model, importing one, and using one."""
