"""What a model is worth: held-out numbers and filled-in text."""
