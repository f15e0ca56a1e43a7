"""How few trials a search needs, measured by replaying recorded tables."""
