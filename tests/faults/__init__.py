"""Faults: what the promises of aquipu are worth. ``python -m tests.faults`` repeats it at any size.

The power fails, or the disk does:

======================  ==========================================================================================
`index`                 the tables of relations, built by hand, and what is found by them
`forgetful`             a disk that forgets: what a power cut may leave of what was written and not synced
`crashes`               power cuts at every moment of a running store, opened and judged by the contract
`errors`                every call to the disk fails in every way
`model`                 a store against a list in memory, through sequences of events that hypothesis thinks up
======================  ==========================================================================================

The process dies:

======================  ==========================================================================================
`plan`                  what a life is to do, and every byte that it appends
`mortal`                a disk at which its process dies, and the deaths that can be died there
`witness`               memory that outlives the process: what it had been told
`author`                opens the store, makes the calls of the plan, and testifies
`exits`                 every way to end without a clean close
`lives`                 what runs in a child: one life
`log`                   what must be in a store after all of its lives, and what is
`server`                runs one life after another, and has what it leaves judged
`kills`                 the process dies, at random and before each single system call: the rounds, and the way in
======================  ==========================================================================================

The bytes change:

======================  ==========================================================================================
`image`                 a directory as bytes, and as files again
`specimen`              small stores that are known record by record
`damage`                every change that is made to them, and where
`outcome`               what opening and reading gave, and whether the contract allows it
`flips`                 every bit of every file flipped; files cut, doubled, swapped, replaced
`fuzz`                  any bytes at all, given to the frame decoder and to opening
======================  ==========================================================================================

What all this is worth:

======================  ==========================================================================================
`tally`                 what a run of one kind of fault counted, and what it found wrong
`hunt`                  a short run of one kind of fault after another, until one finds a violation
`mutants`               small wrong variants of the engine, each of which the hunt must catch
======================  ==========================================================================================
"""
