"""What a worker keeps on disk, so that it outlives its process.

    files.py       the few things asked of a file system, in one place that tests can replace
    records.py     records in a segment, as bytes, and how they are read after damage
    log.py         the log: segments, group writes, when the disk is told to sync
    snapshots.py   a session as one safetensors file
    recovery.py    from files to sessions: what is there, what was torn off, what is damaged
    jobs.py        jobs, a file each
    store.py       the door: what a worker asks of all this
    repair.py      `python -m app repair`

Each file imports only what stands above it.

    data/                       --data-dir, locked by the server (`lock`)
      format                    "curlgrad data 1"
      cpu-0/                    one folder for each worker, locked by it (`lock`)
        running                 the call that runs now (store.py)
        00000001.<16 hex>.log   segments, the oldest first (records.py, log.py); *.torn: what was cut off (recovery.py)
        snapshots/              <session>.<n>.safetensors (snapshots.py)
        jobs/                   <job>.job, .tried, .done (jobs.py)
"""
