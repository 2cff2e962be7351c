"""Text from a trained model: decoding, and filling in masked spans."""
