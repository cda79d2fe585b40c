"""``attar bulk``: very many images <-> ``.attar`` files, on the cores of one machine or on a Ray cluster.

::

    IN --plan--> items --cut--> shards --engine: Worker(shard)--> rows
                   ^                            |
                   '--- ledger.csv <--merge-- parts, one a shard

A shard is what a worker gets at a time; it answers with a row for each image and never raises. The same worker
runs in both engines (:mod:`~attar.apps.bulk.processes`, :mod:`~attar.apps.bulk.cluster`), and what becomes of a
shard whose worker died is decided in one place, :mod:`~attar.apps.bulk.run`.
"""
