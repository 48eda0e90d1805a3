"""The stores of services, under the name that they had before they moved to ``shared``."""

from aquipu.contrib.shared.opener import AnyStore, Opener, Source, opener_of

__all__ = ["AnyStore", "Opener", "Source", "opener_of"]
