"""The top-level keys of the configuration; cheap to import, since --help and typing errors need them first."""

KEYS = (
    *("model", "strategy", "benchmark", "alpha1", "alpha2", "semantics", "datasets", "task", "limit", "subset", "seed"),
    *("device", "dtype", "logger", "results_dir", "data_dir", "overwrite"),
)
