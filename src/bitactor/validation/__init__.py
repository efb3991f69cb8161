"""The validation campaign: what `bitactor validate`, `chaos` and `soak` run, and the report that they write.

It meets the service as users do: through `bitactor.client`, `bitactor.testing` and the command line as a process.
"""
