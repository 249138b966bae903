"""What a command will cost, before anything is spent."""
