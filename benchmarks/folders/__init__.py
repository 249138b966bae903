"""What lies on the disk of a run: records, locks, results, and what they are checked against."""
