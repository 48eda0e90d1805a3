"""How fast aquipu is, against what it is compared with in the same run:

``python -m benchmarks`` (see README.md).
"""
