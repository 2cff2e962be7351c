"""From text and a vocabulary to the token store, and the store itself."""
