"""MLflow, behind one door: no other room imports it.

server    where runs go, and whether it answers
lineage   what a run is traced by: commit, digests of data and model
record    a training as one run, kept on disk until the server has all of it
registry  the versions of rakuten-classifier, their aliases, loading one
lock      dvc.lock, attached to its run once DVC has written it
champion  the version that answers: its files, its reference, what is known of it
watching  drift reports, as runs of an experiment of their own
trace     from a prediction back to code and data: rakuten trace RUN_OR_VERSION
"""

import os

# MLflow reads these while it is imported.
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it may hold a password
    # Half a minute of patience with a server that went away, not MLflow's several: what was to be
    # sent is kept on disk.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    # Artifacts go through the server: a client neither holds S3's keys nor need reach its host.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
