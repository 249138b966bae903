"""From run folders to the tables and curves of the paper, with intervals."""
