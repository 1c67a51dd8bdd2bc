"""Workers own the tensors; the web front owns none.

    messages.py    what is said, and its bytes: msgpack, arrays apart
    pages.py       memory behind a descriptor, and what of it is used again
    frames.py      those bytes on a Unix socket, with big arrays as file descriptors
    replies.py     answers as bytes to keep
    turns.py       who runs next: fair turns by owner
    seats.py       the sessions of a worker, in memory or asleep on the disk
    worker.py      the worker: one thread, many sessions, programs that take turns at their step boundaries
    transports.py  how a front reaches a worker: in a thread of its own process, or in a child process
    plans.py       which workers there are to be
    registry.py    which sessions there are, whose they are, what they are called, where they live
    slots.py       what the supervisor keeps of each worker
    supervisor.py  starts, watches and restarts workers; carries calls to them

Each file imports only what stands above it (supervisor.py all of them). Nothing is imported here, so that a worker
process can settle its environment before NumPy is loaded.
"""
