"""The commands of `rakuten COMMAND`, one module each; `rakuten.__main__` lists and starts them.

sample   write the synthetic sample catalogue
summary  a short table of the results of the last `dvc repro`
doctor   check everything that the project needs
remote   set the DVC remote and its keys
score    classify the products of a file
serve    serve the API and its page
keys     make a key to the API
monitor  compare live traffic with the training data
trace    find the code and data behind a prediction
sync     send the runs that could not be sent to the tracking server
"""
