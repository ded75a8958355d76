"""How good predictions are: folds, scores with confidence intervals, calibration, and the report on a training.

folds            rows split into folds that share no title, and into shards of equal size
out_of_fold      predictions of the train rows by models that did not see them, with the baselines
metrics          weighted F1, macro F1, accuracy; tables of the classes and of their confusion
bootstrap        confidence intervals; the paired comparison of two models
calibration      temperature, reliability, coverage, the threshold of a target precision
novelty_flag     which products count as unlike all train products, and how often that is wrong
label_issues     labels that are probably wrong
learning_curves  the loss and the score of networks while they were fine-tuned
plots            figures of the results
model_card       the model card in Markdown
report           the scores, and every file that is written about a training
"""
