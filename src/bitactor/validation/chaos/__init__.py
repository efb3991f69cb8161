"""The parts of `bitactor chaos`: each file injects one kind of fault for real, counts hits, checks the history."""
