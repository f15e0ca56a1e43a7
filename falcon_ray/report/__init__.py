"""What a search leaves behind: its journal, its recommendation, and what people read of both."""
