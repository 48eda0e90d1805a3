"""Faults: what the promises of aquipu are worth. ``python -m tests.faults`` repeats it at any size.

The power fails, or the disk does:

======================  ============================================================================
`index`                 the tables of relations, built by hand, and what is found by them
`volatile_disk`         a volatile disk: what a power cut may leave of what was not synced
`crashes`               power cuts at every moment of a running store, judged by the contract
`errors`                every call to the disk fails in every way
`passing`               a roll or a write is refused for a moment, and then the power is cut
`model`                 a store against a list in memory, through events that hypothesis thinks up
======================  ============================================================================

The directory is touched:

======================  ============================================================================
`places`                it is moved, replaced or removed under a running store, or its lock is
======================  ============================================================================

The process is killed:

======================  ============================================================================
`plan`                  what a run is to do, and every byte that it appends
`crashing_disk`         a disk at which its process is killed, and the kills that are possible there
`oracle`                memory that outlives the process: what it had been told
`script`                opens the store, makes the calls of the plan, and notes what it is told
`exits`                 every way to end without a clean close
`runs`                  what is executed in a child: one run
`log`                   what must be in a store after all of its runs, and what is
`server`                executes one run after another, and has what it leaves judged
`kills`                 the rounds of kills, at random and before each system call; the way in
======================  ============================================================================

The bytes change:

======================  ============================================================================
`image`                 a directory as bytes, and as files again
`fixture`               small stores that are known record by record
`damage`                every change that is made to them, and where
`outcome`               what opening and reading gave, and whether the contract allows it
`flips`                 every bit of every file flipped; files cut, doubled, swapped, replaced
`fuzz`                  any bytes at all, given to the frame decoder and to opening
======================  ============================================================================

What all this is worth:

======================  ============================================================================
`tally`                 what a run of one kind of fault counted, and what it found wrong
`hunt`                  a short run of one kind of fault after another, until one finds a violation
`mutants`               small wrong variants of the engine, each of which the hunt must catch
`edit`                  how a mutant replaces a part of a function, found by its syntax tree
======================  ============================================================================
"""
