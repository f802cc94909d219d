"""Data to pre-train on: plain text, and made-up tasks whose answers are known."""
