"""What a replica may use of its node: cores, a share of a GPU, memory."""
