"""What happens to live traffic: logged by the API, compared with the model's training data, turned into alarms.

monitor         one check: read the log, score drift, apply the rules, write the report, record it in MLflow
drift           drift score of each monitored column (the only module that imports evidently)
alerts          the rules under `monitor` in params.yaml: from drift scores and later labels to alarms
live_score      the score of live predictions, by labels that came later
live_novelty    the share of novel products, and when it is too high
live_precision  the precision of automatic decisions, by the review desk's audit sample
plots           the drift report as a figure
prediction_log  the API's SQLite log of predictions: writer and reader
status_files    names of the status files that the API exports to Prometheus
"""
