"""What `python -m scripts.efficiency` measures: one file per part."""
