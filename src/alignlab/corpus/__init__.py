"""From raw texts to data: audited, cleaned, mixed, counted, packed."""
