"""Training (``pip install 'attar[train]'``): data sets, layers, networks, losses, the trainer, validation, export."""
