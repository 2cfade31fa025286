"""Checkpoint layouts: how each one tokenizes, by the rules of the loader that it was trained with.

Each layout is one file and one line of the table (`scanning.py`). Sources: colbert-ai 0.2.22 (Stanford), PyLate 1.6, and
sentence-transformers 6. If sentence-transformers loads another layout differently (markers as text, no strip), the layout's
own rule applies.
"""
