"""How many files this process may have open: as many as the system lets it, and enough for its data workers."""

import resource

ALONE = 64  # a run with its libraries, logs, checkpoints and connections
PER_WORKER = 24  # pipes, and descriptors of the batches that are on their way


def provide(workers: int) -> None:
    """Raises this process's limit as far as it may, and so that of what it starts.

    Args:
        workers: of data loaders, all together.
    Raises:
        ValueError: it stays below what they need; without, loaders wait for batches that never come.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = ALONE + PER_WORKER * workers
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if workers and soft != resource.RLIM_INFINITY and soft < needed:
        raise ValueError(
            f"num_workers={workers} needs about {needed} open files, and this process may have {soft}: raise the limit "
            f"(ulimit -n {needed}), or set num_workers=0"
        )
