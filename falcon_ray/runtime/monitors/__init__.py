"""What replicas use of their nodes, watched from outside."""
