"""Fetching files of the Hugging Face Hub, and room for them."""
