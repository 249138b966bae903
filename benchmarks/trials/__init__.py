"""Work that is long, and work that is killed: what a run must survive, done on purpose."""
