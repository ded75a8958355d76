"""The champion over HTTP: an API, a page and metrics. Holds no model logic: it loads a classifier and calls it.

settings  what the environment sets          champion  loads the model, its last good copy, swaps it
scorer    threads, batches, back-pressure    guard     keys, limits, headers, log: around every request
schemas   what goes in and comes out         app       the routes
"""
