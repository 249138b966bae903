"""Settings for the whole suite: reproducible hypothesis runs, one thread a process."""

import os

import torch
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)
settings.register_profile("reproducible", derandomize=True, deadline=None, max_examples=150)
settings.load_profile("reproducible")
