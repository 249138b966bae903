"""Computing runs and keeping them: from settings to run folders, in one process or many."""
