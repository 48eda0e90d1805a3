"""The requests under way, under the name that they had before they moved to ``shared``."""

from aquipu.contrib.shared.underway import SECONDS, UnderWay, requests_of

__all__ = ["SECONDS", "UnderWay", "requests_of"]
