"""The codec of plain ``pip install attar``: numpy, Pillow, ONNX Runtime, constriction, nothing else."""
