"""Parts of one's own for alignlab."""

__version__ = "0.1.0"
