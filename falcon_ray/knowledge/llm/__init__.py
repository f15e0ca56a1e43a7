"""Serving language models: an architecture's terms instead of operators."""
