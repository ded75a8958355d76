"""The review desk: products that wait for a person, their order, and what people decide.

tables        the tables of the database
migrations    how they are created and changed, for Alembic
database      opening SQLite or PostgreSQL, transactions
order         in which order products are shown
sources       products for the queue, from scored files and doubted labels
audit         the sample of decided products that nobody can tell from the others
decisions     what several decisions about a product amount to; agreement between people
queue         queries: orders, filters, counts
desk          the queue: who gets which product, and what is decided
files         files of products, read for the queue; corrections.csv, written
reviewed      what people decided, as a table for the monitoring
provenance    from a train row back to the decisions that changed it
exchange      corrections.csv for the pipeline; all decisions as CSV
label_studio  tasks for Label Studio, and the decisions in its export
"""
