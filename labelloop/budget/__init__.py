"""Spends a person's time where it helps: what images cost, which are asked about, and how that went."""
