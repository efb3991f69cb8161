"""Power loss: what a run wrote and synced is recorded, and disks as they may look afterwards are built from it."""
