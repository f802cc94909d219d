"""A ladder's curves as a page and as pictures."""
