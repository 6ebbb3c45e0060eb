"""A world in one thread: our real code, on simulated time, between a bank, a network, machines and
clients that do whatever they may.

    choices      where chance comes from: a seed, or hypothesis
    scheduler    simulated time, and tasks that are suspended at every input and output
    weather      which faults there are, and how often
    bank         the partner bank with all its quirks, and the wire to it
    store        the tables, and the wire to them
    gateway      processes of ours: APIs and workers, which die, are stopped, and start again
    merchants    clients: impatient, forgetful, repetitive
    cards        what must not be seen anywhere
    checks       what must hold after every step, and once all is quiet
    world        all of it together, from a seed to a report
    soak         the command line: `scripts/soak`
"""
