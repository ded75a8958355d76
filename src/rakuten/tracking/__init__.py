"""Everything that talks to MLflow: no other room imports it.

probe             one request to a tracking server, and what to do if it cannot be reached
server            the address of the tracking server, whether it answers, a client
commits           which commit holds the code, parameters and dvc.lock of a training
lineage           what makes a run traceable: commit, digests of data and model
registry          versions of rakuten-classifier and their aliases
signatures        signatures of models, in the format of minisign
training_run      one training as one run, kept on disk until the server has all of it
dvc_lock          dvc.lock as an artifact of the run that it records
trace             from a prediction, a run or a version back to code and data: `rakuten trace`
registered_model  the champion version: its model files, its reference sample, its metadata
monitoring_runs   drift reports as runs of an experiment of their own
"""

import os

# MLflow reads these while it is imported.
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the address may contain a password
    # Give a server that does not answer half a minute, instead of MLflow's several minutes: what could not be sent is
    # kept on disk.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    # Artifacts go through the server, so that clients need neither keys to S3 nor a route to it.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
