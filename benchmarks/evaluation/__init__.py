"""Computing runs and keeping them: from settings to run folders, in one process or many."""

# The top-level keys of the configuration; here, since --help and typing errors need them before anything else.
KEYS = (
    *("model", "strategy", "storage", "benchmark", "alpha1", "alpha2", "budget", "semantics", "question", "datasets"),
    *("task", "limit", "subset", "seed", "device", "dtype", "logger", "results_dir", "data_dir", "overwrite"),
)
