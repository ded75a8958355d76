"""Promotion: whether the challenger becomes the champion.

unseen_products  the champion's predictions of products that only the challenger was trained on
gate             the comparison, the rules of params.yaml, the decision; rollback
"""
