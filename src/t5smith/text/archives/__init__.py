"""Archives of files, zip and tar: which members they have, and the documents of these."""
