"""The peers that run on JAX: jaxgd's `train`, and programs that a user would write without `train`."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.training.work import Peer, Shared, Weights, Work, batches


def by_jaxgd(kernel: str, precision: str | None = None) -> Peer:
    """Return a peer that calls `train` as a user does, in a thread.

    After each epoch (or full-batch step), the callback blocks until the benchmark asks this peer for the next weights.
    """

    def units(work: Work, data: Shared) -> Iterator[Weights]:
        import jax
        import jax.numpy as jnp

        import jaxgd
        from jaxgd.typed import block_until_ready

        done: queue.Queue[jaxgd.Network | Exception] = queue.Queue()
        asked = threading.Semaphore(0)
        network = tuple(jaxgd.Layer(jnp.asarray(w), jnp.asarray(b)) for w, b in data.weights)
        objective: Any = {} if work.l2 is None else {"cost": jaxgd.cross_entropy, "l2": work.l2}

        def after(state: jaxgd.TrainState, entry: jaxgd.History) -> None:
            done.put(block_until_ready(state.network))
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

        def next_network() -> jaxgd.Network:
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
    from jaxgd.typed import grad, jit, tree_map

    x, y = jnp.asarray(data.x, np.float32) / 255, jax.nn.one_hot(data.y, work.sizes[-1])
    network = tuple(jaxgd.Layer(jnp.asarray(w), jnp.asarray(b)) for w, b in data.weights)

    @jit
    def step(network: jaxgd.Network, x: jax.Array, y: jax.Array) -> jaxgd.Network:
        gradient = grad(jaxgd.network_cost)(network, x, y)
        return tree_map(lambda v, g: v - work.eta * g, network, gradient)

    for k in range(10**6):
        for rows in batches(work, data, k):
            network = step(network, x[rows], y[rows])
        yield [(np.asarray(w), np.asarray(b)) for w, b in network]


def by_scan(work: Work, data: Shared) -> Iterator[Weights]:
    """Train with `lax.scan` over mini-batches of float32 images. One call of a compiled program runs one epoch."""
    import jax
    import jax.numpy as jnp

    import jaxgd
    from jaxgd.typed import grad, jit, tree_map

    x, y = jnp.asarray(data.x, np.float32) / 255, jax.nn.one_hot(data.y, work.sizes[-1])
    network = tuple(jaxgd.Layer(jnp.asarray(w), jnp.asarray(b)) for w, b in data.weights)

    def step(network: jaxgd.Network, rows: jax.Array) -> tuple[jaxgd.Network, None]:
        gradient = grad(jaxgd.network_cost)(network, x[rows], y[rows])
        return tree_map(lambda v, g: v - work.eta * g, network, gradient), None

    size = work.batch_size or work.n
    full = work.n - work.n % size

    @jit
    def epoch(network: jaxgd.Network, order: jax.Array) -> jaxgd.Network:
        network, _ = jax.lax.scan(step, network, order[:full].reshape(-1, size))
        return step(network, order[full:])[0] if full < work.n else network

    whole = jnp.arange(work.n)
    for k in range(10**6):
        network = epoch(network, jnp.asarray(data.order(k)) if work.batch_size else whole)
        yield [(np.asarray(w), np.asarray(b)) for w, b in network]


def by_flax(work: Work, data: Shared) -> Iterator[Weights]:
    """Train with Flax modules and optax. Python calls a jitted step, as in Flax's own MNIST example."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax
    from flax.training.train_state import TrainState

    x, y = jnp.asarray(data.x, np.float32) / 255, jax.nn.one_hot(data.y, work.sizes[-1])
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


def by_networks(kernel: str, together: bool) -> Peer:
    """Return a peer that trains many networks, each with its own η and its own order of the examples.

    With `together`, one `vmap` trains all networks. Otherwise the networks train one by one. The peer yields the
    weights of the first network.
    """

    def units(work: Work, data: Shared) -> Iterator[Weights]:
        import jax
        import jax.numpy as jnp

        import jaxgd
        from jaxgd.typed import block_until_ready, jit, vmap

        keys = jax.vmap(jax.random.key)(jnp.arange(work.networks))
        # The benchmark compares the cost of the first network between the peers, so that network has the case's η.
        etas = work.eta * jnp.linspace(1, 0.5, work.networks)
        network = tuple(jaxgd.Layer(jnp.asarray(w), jnp.asarray(b)) for w, b in data.weights)
        x, y = jnp.asarray(data.x), jnp.asarray(data.y)

        def epochs(
            network: jaxgd.Network,
            key: jax.Array,
            eta: jax.Array,
            state: jaxgd.TrainState | None,
            x: jax.Array,
            y: jax.Array,
            epochs: int,
        ) -> jaxgd.TrainState:
            options: dict[str, Any] = {"batch_size": work.batch_size, "evaluate": False, "kernel": kernel}
            return jaxgd.train(network, (x, y), epochs=epochs, eta=eta, key=key, state=state, **options).state

        def first(key: jax.Array, eta: jax.Array, x: jax.Array, y: jax.Array) -> jaxgd.TrainState:
            return epochs(network, key, eta, None, x, y, 0)

        def further(state: jaxgd.TrainState, eta: jax.Array, x: jax.Array, y: jax.Array) -> jaxgd.TrainState:
            return epochs(state.network, state.key, eta, state, x, y, 1)

        mapped = (0, 0, None, None)
        states = jit(vmap(first, mapped))(keys, etas, x, y)
        if together:
            run = jit(vmap(further, mapped))
            while True:
                states = run(states, etas, x, y)
                yield [(np.asarray(w[0]), np.asarray(b[0])) for w, b in states.network]
        one = jit(further)
        each: list[jaxgd.TrainState]
        each = [jax.tree.map(lambda leaf, k=k: leaf[k], states) for k in range(work.networks)]
        while True:
            each = block_until_ready([one(state, etas[k], x, y) for k, state in enumerate(each)])
            yield [(np.asarray(w), np.asarray(b)) for w, b in each[0].network]

    return units
