"""The peers that run on JAX: jaxgd's `train`, and programs that a user would write without `train`."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.training.work import Peer, Shared, Weights, Work, batches


def by_jaxgd(kernel: Any, precision: Any = None) -> Peer:
    """Return a peer that calls `train` as a user does, in a thread.

    After each epoch (or full-batch step), the callback blocks until the benchmark asks this peer for the next one.
    """

    def units(work: Work, data: Shared) -> Iterator[Weights]:
        import jax
        import jax.numpy as jnp

        import jaxgd

        done: queue.Queue[Any] = queue.Queue()
        asked = threading.Semaphore(0)
        network = tuple(jaxgd.Layer(jnp.asarray(w), jnp.asarray(b)) for w, b in data.weights)
        objective: Any = {} if work.l2 is None else {"cost": jaxgd.cross_entropy, "l2": work.l2}

        def after(state: Any, entry: Any) -> None:
            jax.block_until_ready(state.network)  # type: ignore[no-untyped-call]
            done.put(state.network)
            asked.acquire()

        def run() -> None:
            try:
                jaxgd.train(
                    network, (data.x, data.y), epochs=10**6, batch_size=work.batch_size, eta=work.eta,
                    key=jax.random.key(0), evaluate=False, kernel=kernel, precision=precision, callback=after,
                    **objective,
                )  # fmt: skip
            except Exception as error:
                done.put(error)

        def next_network() -> Any:
            network = done.get()
            if isinstance(network, Exception):
                raise network
            return network

        threading.Thread(target=run, daemon=True).start()
        next_network()
        while True:
            asked.release()
            yield [(np.asarray(w), np.asarray(b)) for w, b in next_network()]

    return units


def by_jit(work: Work, data: Shared) -> Iterator[Weights]:
    """Train with a jitted step that Python calls for each mini-batch, on float32 images."""
    import jax
    import jax.numpy as jnp

    import jaxgd

    x, y = jnp.asarray(data.x, jnp.float32) / 255, jax.nn.one_hot(data.y, work.sizes[-1])
    network = tuple(jaxgd.Layer(jnp.asarray(w), jnp.asarray(b)) for w, b in data.weights)

    @jax.jit
    def step(network: Any, x: Any, y: Any) -> Any:
        gradient = jax.grad(jaxgd.network_cost)(network, x, y)
        return jax.tree.map(lambda v, g: v - work.eta * g, network, gradient)

    for k in range(10**6):
        for rows in batches(work, data, k):
            network = step(network, x[rows], y[rows])
        yield [(np.asarray(w), np.asarray(b)) for w, b in network]


def by_scan(work: Work, data: Shared) -> Iterator[Weights]:
    """Train with `lax.scan` over mini-batches of float32 images. One call of a compiled program runs one epoch."""
    import jax
    import jax.numpy as jnp

    import jaxgd

    x, y = jnp.asarray(data.x, jnp.float32) / 255, jax.nn.one_hot(data.y, work.sizes[-1])
    network = tuple(jaxgd.Layer(jnp.asarray(w), jnp.asarray(b)) for w, b in data.weights)

    def step(network: Any, rows: Any) -> Any:
        gradient = jax.grad(jaxgd.network_cost)(network, x[rows], y[rows])
        return jax.tree.map(lambda v, g: v - work.eta * g, network, gradient), None

    size = work.batch_size or work.n
    full = work.n - work.n % size

    @jax.jit
    def epoch(network: Any, order: Any) -> Any:
        network, _ = jax.lax.scan(step, network, order[:full].reshape(-1, size))
        return step(network, order[full:])[0] if full < work.n else network

    whole = np.arange(work.n)
    for k in range(10**6):
        network = epoch(network, data.order(k) if work.batch_size else whole)
        yield [(np.asarray(w), np.asarray(b)) for w, b in network]


def by_flax(work: Work, data: Shared) -> Iterator[Weights]:
    """Train with Flax modules and optax. Python calls a jitted step, as in Flax's own MNIST example."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax
    from flax.training.train_state import TrainState

    x, y = jnp.asarray(data.x, jnp.float32) / 255, jax.nn.one_hot(data.y, work.sizes[-1])
    net = nn.Sequential([layer for width in work.sizes[1:] for layer in (nn.Dense(width), nn.sigmoid)])
    names = [f"layers_{2 * k}" for k in range(len(data.weights))]
    layers = zip(names, data.weights, strict=True)
    params = {name: {"kernel": jnp.asarray(w.T), "bias": jnp.asarray(b)} for name, (w, b) in layers}
    # With Any, mypy gives the same result with and without Flax installed.
    train_state: Any = TrainState
    state = train_state.create(apply_fn=net.apply, params=params, tx=optax.sgd(work.eta))

    @jax.jit
    def step(state: Any, x: Any, y: Any) -> Any:
        loss = lambda params: jnp.sum((net.apply({"params": params}, x) - y) ** 2) / (2 * len(x))  # noqa: E731
        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    for k in range(10**6):
        for rows in batches(work, data, k):
            state = step(state, x[rows], y[rows])
        yield [(np.asarray(state.params[n]["kernel"]).T, np.asarray(state.params[n]["bias"])) for n in names]


def by_networks(kernel: Any, together: bool) -> Peer:
    """Return a peer that trains many networks, each with its own η and its own order of the examples.

    With `together`, one `vmap` trains all; otherwise they train one by one.
    """

    def units(work: Work, data: Shared) -> Iterator[Weights]:
        import jax
        import jax.numpy as jnp

        import jaxgd

        keys = jax.vmap(jax.random.key)(jnp.arange(work.networks))
        # The benchmark compares the cost of the first network with the other peers, so that network has the case's η.
        etas = work.eta * jnp.linspace(1, 0.5, work.networks)
        network = tuple(jaxgd.Layer(jnp.asarray(w), jnp.asarray(b)) for w, b in data.weights)
        x, y = jnp.asarray(data.x), jnp.asarray(data.y)

        def epochs(network: Any, key: Any, eta: Any, state: Any, x: Any, y: Any, epochs: int) -> Any:
            options = {"batch_size": work.batch_size, "evaluate": False, "kernel": kernel}
            return jaxgd.train(network, (x, y), epochs=epochs, eta=eta, key=key, state=state, **options).state

        def first(key: Any, eta: Any, x: Any, y: Any) -> Any:
            return epochs(network, key, eta, None, x, y, 0)

        def further(state: Any, eta: Any, x: Any, y: Any) -> Any:
            return epochs(state.network, state.key, eta, state, x, y, 1)

        mapped = (0, 0, None, None)
        states = jax.jit(jax.vmap(first, mapped))(keys, etas, x, y)
        if together:
            run = jax.jit(jax.vmap(further, mapped))
            while True:
                states = run(states, etas, x, y)
                yield [(np.asarray(w[0]), np.asarray(b[0])) for w, b in states.network]
        one = jax.jit(further)
        each = [jax.tree.map(lambda leaf, k=k: leaf[k], states) for k in range(work.networks)]
        while True:
            each = [one(state, eta, x, y) for state, eta in zip(each, etas, strict=True)]
            jax.block_until_ready(each)  # type: ignore[no-untyped-call]
            yield [(np.asarray(w), np.asarray(b)) for w, b in each[0].network]

    return units
