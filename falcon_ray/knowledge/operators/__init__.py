"""What a model calls: operators, the families they belong to, and which of them matter."""
