"""What this machine keeps of a cluster: its journal, its key and token, and who works on it."""
