"""Replicas of one app over NATS JetStream: lanes, who owns them, and the way of a signal to its lane and back.

The data path, in the order in which a frame meets it:

    router    a session's frame, cut into parts by lane            (the replica that the producer is connected to)
    channel   parts of many frames, one bundle at a time to the lane's owner
    intake    what of a bundle is new goes into the lane's open record, in order, once      (the lane's owner)
    lane      the runtime's core of one lane: log, engine, writer, snapshots
    outbox    what its actors emit to keys of other lanes, on its way into their logs

and beside it: members (who is there), assignment (who should own what), queries, replica (the one object of it all).
"""
