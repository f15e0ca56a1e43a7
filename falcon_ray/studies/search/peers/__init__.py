"""Other people's optimizers behind our protocol; each is skipped where it is not installed."""
