"""Each aggregate as an actor: load, decide, append, adopt the new state, reply.

May import: leaves, actors, domain, supervision, store.

Read `actor`, then `journal`, which commits what all aggregates record in groups. `idempotency` and `fingerprint`
recognise a command that comes again; `snapshots` shorten loading; `external_writes` notices what other processes
record. `repository` does the same without actors.
"""
