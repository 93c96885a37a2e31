"""Peak memory of this process."""

from pathlib import Path


def peak_mb() -> float:
    """High-water mark of resident memory, MB; unlike getrusage's it does not begin with that of the parent process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
