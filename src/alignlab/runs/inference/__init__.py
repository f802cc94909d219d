"""What infer.py's tasks work on."""
