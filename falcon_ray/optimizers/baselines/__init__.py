"""What people search with today: the opponents that a search has to beat on recorded tables."""
