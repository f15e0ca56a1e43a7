"""How well the knowledge predicts what was measured and never shown to it."""
