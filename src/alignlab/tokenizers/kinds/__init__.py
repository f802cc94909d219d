"""Tokenizers of each kind of file, all asked alike."""
