"""Services that die under load: what their clients were told must be in the store. ``python -m tests.services`` repeats it.

======================  ==========================================================================================
`client`                many connections in a process of their own, and what each of them was told
`kills`                 a service is killed at a random moment, again and again, and its store judged each time
======================  ==========================================================================================
"""
