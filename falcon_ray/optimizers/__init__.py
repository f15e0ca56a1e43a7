"""What to try next: every optimizer, and what they share."""
