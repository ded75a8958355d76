"""Classification of products into the product type codes of the Rakuten France catalogue.

interrupts                a script's Ctrl-C while it imports
errors, yaml_files        the user's error; YAML as DVC reads it, its errors in the words of the file
config, types             paths, typed params.yaml and .env; names of array types
files, disk_array         files that are written whole or not at all; arrays larger than memory
compute/                  where heavy work runs: processes of this machine or a Dask cluster
cli                       what every command has: flags, logs, progress, one line for an error
tracking/                 MLflow: runs, registry, lineage
data/                     raw files, checked and joined; products of any file; the synthetic catalogue
features/                 from a product to numbers: text, n-grams, embeddings, the feature set
evaluation/               folds, scores with intervals, calibration, reports
models/                   the classifier and how it is learnt
review/                   products that wait for a person, and what people decide
promotion/                whether a challenger becomes champion
monitoring/               drift of live traffic
serving/                  the HTTP API and its page
commands/                 `rakuten COMMAND`

A room imports only from those above it.
"""

import os

# onnxruntime reads this when it is first imported; from 1.29 on it otherwise keeps a number for this machine and sends
# events. Here, because whatever imports it has imported this package before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
