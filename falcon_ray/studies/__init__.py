"""Our own benchmarks: they measure this project and its peers, and print the tables it shows."""
