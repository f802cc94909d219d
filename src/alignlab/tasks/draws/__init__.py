"""Tasks that draw several answers to each prompt."""
