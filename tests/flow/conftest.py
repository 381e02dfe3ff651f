"""A home of its own for every test, and a store with two walks."""
from desk_stage import home, store

__all__ = ['home', 'store']
