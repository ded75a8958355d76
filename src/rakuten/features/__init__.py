"""Features of products, from cleaned text to embeddings.

text               cleaning of titles and descriptions
style              tokens for how a text is written, and its language
text_features      the table of text features
ngrams             word and character n-gram TF-IDF
encoders           image and text encoders
embedding          embeddings of many images and texts
embedding_cache    embeddings kept between runs
feature_set        the feature set on disk and in memory
near_duplicates    products that are nearly the same, which folds hold together
monitored_columns  what monitoring keeps of a product and its prediction
"""
