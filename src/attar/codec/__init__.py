"""The codec that plain ``pip install attar`` gives: numpy, Pillow, ONNX Runtime and constriction, nothing else."""
