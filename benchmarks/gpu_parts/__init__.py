"""The parts of `benchmarks/gpu.py`: what each measures on one GPU, and how results are kept."""
