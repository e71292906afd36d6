"""The workloads of `make bench` in what a user would pick instead, beside ours: `make bench-peers`."""
