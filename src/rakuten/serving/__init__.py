"""The champion over HTTP: a JSON API, a web page and Prometheus metrics.

There is no model logic here: a `ProductClassifier` is loaded and called.

app               the ASGI application: routes, error handlers, start and stop
connections       what a connection may hold and how long it may take until its request is whole
large_bodies      how much memory large bodies take together, and whose turn it is
middleware        host check, API keys, rate and size limits, security headers and the access log of every request
parsing           request bodies (JSON or a form) to validated products
schemas           the request and response bodies as pydantic models, and the OpenAPI document made from them
problems          error responses as application/problem+json
training_pictures pictures of training products, which explanations name
image_decoder     decodes pictures in processes with a limit of time and memory, of which decoding_worker is the code
scorer            the queue of products, the threads that score them in batches, overload
model_holder      loads the model, checks it, keeps the last good copy, replaces it when there is a new champion
review            the review desk's routes; their bodies are in review_schemas, what is slow to count in kept_answers
responses         the bodies of responses
service           what the routes share: the model, the scorer, the prediction log, the review desk
review_admin      its routes for files of products, corrections and decisions
review_intake     puts what needs review into it, as the API answers
roles             which role of a key each path needs
keys              API keys and their file
settings          the API_... environment variables
languages         the language of the codes' names, by Accept-Language
metrics           the API's own Prometheus metrics
exported_metrics  Prometheus metrics read from the files of the monitoring and the pipeline
page/             HTML, CSS and JavaScript of the web page
"""

import os

# Some hosts set it for every program. With it, prometheus_client would write its metrics to files, for several
# processes; the API is one.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
