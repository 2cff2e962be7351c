"""Text to vocabulary: training a Unigram model, and using one."""
