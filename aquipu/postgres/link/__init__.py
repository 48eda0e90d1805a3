"""Connections to a server: for questions, and the one that carries commits."""
