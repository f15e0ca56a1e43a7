"""`python -m cluster`, from the checkout."""

from cluster.entry_point import main

main()
