"""What `t5smith bench` measures, each beside a peer or a bar, in one run."""
