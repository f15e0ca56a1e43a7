"""The profile: what was measured and fitted, as tables on disk."""
