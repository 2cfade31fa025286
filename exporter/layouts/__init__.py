"""Checkpoint layouts: what each says about tokenization, read by the rules of the loader it was trained with.

One file for each layout, one line of the table (`scanning.py`). Sources: colbert-ai 0.2.22 (Stanford), PyLate 1.6, and
sentence-transformers 6. Where sentence-transformers loads another's layout differently (markers as text, no strip), the
layout's own rule stands.
"""
