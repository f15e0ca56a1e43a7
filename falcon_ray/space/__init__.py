"""What can be configured, what it costs, and what counts as better."""
