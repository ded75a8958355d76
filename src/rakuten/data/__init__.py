"""The challenge's data: reading, validating and joining it; product files to score; a synthetic catalogue.

schema            files, columns, ids and image names of the challenge
columns           the header of a CSV file: its columns, the index, names that must be changed
text_files        what is a CSV file: encoding, separator, and other kinds of files that are named
tables            CSV files: strict reading of the challenge's, reading and writing of the pipeline's
taxonomy          the product type codes of data/taxonomy.csv: names, parents, codes merged into others
text_hashes       hashes by which the texts of all rows are compared in 8 bytes per row
validation        which faults stop ingestion, which reject a row, and which are only counted
raw_files         the challenge's CSV files, opened with all checks and read in chunks of joined rows
ingestion         the interim tables and the quality report
images            finding image files by name, reading them, checking them
image_decoding    image files to RGB, within a budget of pixels
product_files     CSV and Parquet files of products to score
synthetic         a synthetic catalogue in the challenge's format
synthetic_images  its images
"""
