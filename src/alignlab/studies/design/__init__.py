"""What a study declares, and the points it tries."""
