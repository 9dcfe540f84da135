"""Train one network on several processes, each with a part of the examples.

The script starts its processes on this machine. They communicate with Gloo. On a cluster, start one process per host,
and give each the address of process 0, as in `python distributed.py --process 0 --address node1:9876` on node1.
"""

import argparse
import socket
import subprocess
import sys

import jax

import jaxgd

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="digits", help="the name of a data set, or a folder of IDX files")
parser.add_argument("--epochs", type=int, default=200)
parser.add_argument("--processes", type=int, default=2)
parser.add_argument("--process", type=int, help="index of this process; without it, the script starts all processes")
parser.add_argument("--address", help="host:port of process 0")
parser.add_argument("--picture", default="distributed.png")
args = parser.parse_args()

if args.process is None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, __file__, *sys.argv[1:], "--address", address, "--process"]
    jobs = [subprocess.Popen([*command, str(process)]) for process in range(args.processes)]
    sys.exit(max(job.wait() for job in jobs))

jax.distributed.initialize(args.address, args.processes, args.process)
mesh = jax.make_mesh((jax.device_count(),), ("examples",))
digits = jaxgd.load_dataset(args.data)
network = jaxgd.init_network(jax.random.key(0), (digits.train.images[0].size, 30, 10), "scaled")
settings = {"epochs": args.epochs, "batch_size": None, "eta": 3.0, "key": jax.random.key(1)}
together = jaxgd.train(network, jaxgd.mesh.place(digits, mesh), **settings).history
if jax.process_index() == 0:
    import matplotlib.pyplot as plt

    alone = jaxgd.train(network, digits, kernel="xla", **settings).history
    figure, (costs, differences) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    costs.plot(together.epoch, together.cost, linewidth=3, alpha=0.5, label=f"{args.processes} processes")
    costs.plot(alone.epoch, alone.cost, "k:", label="1 process")
    differences.plot(alone.epoch, abs(together.cost - alone.cost) / alone.cost, ".", markersize=3)
    costs.set(xlabel="epoch", ylabel="C", yscale="log")
    differences.set(xlabel="epoch", ylabel="relative difference of C")
    costs.legend(frameon=False)
    figure.savefig(args.picture, dpi=120)
    print(f"{jax.process_count()} processes: C = {together.cost[-1]:.5f}; 1 process: C = {alone.cost[-1]:.5f}")
    print(f"drawn: {args.picture}")
