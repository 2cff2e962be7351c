"""Raw text: from the names in a recipe to documents, in any format, cleaned."""
