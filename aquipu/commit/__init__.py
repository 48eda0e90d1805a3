"""The loop's side of an append: how commits form, and how their callers go on."""
