"""What a run folder is: saves, locks, logs and seeds; nothing here knows MPI."""
