"""Archives of files, zip and tar: which files they have, and their documents. Nothing is unpacked to disk but
for members that cannot be read from beginning to end."""
