"""Computing runs: from the samples that are missed to answers, in one process or many."""
