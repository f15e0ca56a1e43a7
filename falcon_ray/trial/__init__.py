"""One trial deployment: load, statistics, verdicts, and the order in which they happen."""
