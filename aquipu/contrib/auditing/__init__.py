"""Auditing of requests, whatever the framework: `aquipu.contrib.audit` has the names."""
