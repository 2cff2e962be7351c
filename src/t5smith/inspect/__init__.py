"""What the encoder and decoder see."""
