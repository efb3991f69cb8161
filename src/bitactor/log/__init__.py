"""The log: ordered records that survive what their durability says, and snapshots of state at a position."""
