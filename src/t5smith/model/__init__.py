"""The T5 1.1 encoder-decoder as functions over plain parameter trees."""
