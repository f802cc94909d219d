"""What the `alignlab` command does besides training and inference."""
