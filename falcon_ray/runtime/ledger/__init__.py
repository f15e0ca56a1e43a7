"""Who may use which part of the cluster: one actor admits whole trials."""
