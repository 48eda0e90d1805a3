"""How fast this disk is for a store, and which policy that recommends: `aquipu bench`.

============  ================================================================
`plan`        what is measured, and how long. Pure
`results`     what came out: percentiles, and what is not plausible. Pure
`advice`      which policy for so many requests a second. Pure
`measure`     the measuring: single syncs, and stores under load
`table`       the results as text, with bars. Pure
`plot`        the results as a picture (matplotlib)
============  ================================================================

All of it happens in a directory of its own, which is removed at the end, however that comes.
"""
