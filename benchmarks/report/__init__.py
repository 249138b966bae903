"""What a researcher looks at: one HTML page of all runs, and pictures of attention and of what a cache keeps."""
