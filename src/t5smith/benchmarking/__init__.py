"""What `t5smith bench` measures, each beside a peer or a bar in the same run."""
