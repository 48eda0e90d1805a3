"""Copies of a log record by record, where it changes the engine: files of a log given and taken.

A backup copies files; here records cross, in pieces of whole frames with the keys of their commits.
What is taken over stands at the same sequence, with the same time, labels and key.
"""
