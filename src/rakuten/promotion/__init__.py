"""Promotion: whether the challenger becomes the champion.

unseen_products   the champion's predictions of products that only the challenger was trained on
decided_products  the products that people decided, which the comparison leaves out
gate              the comparison, the rules of params.yaml, the decision; rollback
"""
