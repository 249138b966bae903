"""Which of several processes talks to the user; cheap to import, since --help and typing errors need it first."""

import os


def leads() -> bool:
    """Whether this process is alone, or the one of rank 0 among those that `torchrun` started."""
    return os.environ.get("TORCHELASTIC_RUN_ID") is None or os.environ.get("RANK", "0") == "0"
