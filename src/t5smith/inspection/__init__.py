"""What the encoder and the decoder see, as data."""
