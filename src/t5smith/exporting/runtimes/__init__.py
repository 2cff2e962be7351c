"""The exported model in the formats of other runtimes, each compared with t5smith on 50 inputs."""
