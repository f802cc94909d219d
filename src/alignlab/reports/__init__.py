"""Reports as one HTML page: no other files, light and dark, for narrow and wide screens."""
