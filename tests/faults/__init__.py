"""Faults: what the promises of aquipu are worth. ``python -m tests.faults`` repeats it at any size.

======================  ==========================================================================================
`forgetful`             a disk that forgets: what a power cut may leave of what was written and not synced
`crashes`               power cuts at every moment of a running store, opened and judged by the contract
`errors`                every call to the disk fails in every way
`kills`                 the process dies, at random and before each single system call
`flips`                 every bit of every file flipped; files cut, doubled, swapped, replaced
`mutants`               small wrong variants of the engine, each of which the above must catch
======================  ==========================================================================================
"""
