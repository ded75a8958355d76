"""The classifier, how it is trained, and how it is applied.

classifier         ProductClassifier: features in, codes and probabilities out; saved and loaded without code
faults             what is wrong with the numbers of a model that is loaded
linear             linear SVM and linear discriminant analysis: the models of the views
fusion             one probability for each class from the scores of all views
parents            the parent of a product whose code is unsure
novelty            how unlike all train products a product is
neighbours         the training images that are most similar to an image
explain            why a product got its code
training           trains the classifier, and scores it out of fold
text_model         the n-gram view, trained on shards of any number of rows
fusion_selection   cross-fitted fusion, and how the image view comes in
pyfunc_model       raw products in, predictions out: for MLflow and the API
self_check         made-up products that a loaded model must answer as when it was trained
score_features     scores rows of a feature set: for the predict stage
score_file         scores a CSV or Parquet file: for `rakuten score`
"""
